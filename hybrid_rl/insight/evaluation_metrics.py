"""Evaluations as flat metrics, for conditions, alarms and loggers: `eval/NAME/MODE`, `eval_set/SET/NAME/MODE`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hybrid_rl.config import Config

EVALUATION_METRICS: dict[str, str] = {
    "accuracy": "mean of the accuracy part; a response without a score counts 0",
    "mean_tokens": "mean number of sampled tokens of a response",
    "leak_rate": "share of responses with other think blocks than the mode asks for",
    "well_formed": "share of responses that ended by themselves with exactly the mode's think block",
}
"""`eval/NAME/MODE` and `eval_set/SET/NAME/MODE`."""

PARTIAL_METRICS: dict[str, str] = {
    "accuracy_when_well_formed": "accuracy of the well-formed responses, where there are any",
    "thinks": "where the model chooses the mode: share of responses with a thought",
    "hybrid_accuracy": "where the model chooses: share of responses in the better of the assigned modes",
}
"""`eval/NAME/MODE`, where an evaluation has them; the first one also `eval_set/SET/NAME/MODE`."""

BLIND_METRICS: dict[str, str] = {
    "blind_accuracy": "accuracy with every image and video blanked, where `evaluation.blind` is set",
    "image_gap": "accuracy minus blind accuracy: what seeing the images adds",
}
"""`eval/NAME/MODE`."""


def evaluation_metrics(
    plain: Mapping[str, Any] | None, blind: Mapping[str, Any] | None = None, sets: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Flat metrics of what an evaluation found.

    Args:
        plain, blind: `{mode: {...}}` as `evaluate` returns it; None where it was not done.
        sets: the same by name of the set.
    """
    result: dict[str, float] = {}
    for mode, figures in (plain or {}).items():
        result |= {f"eval/{name}/{mode}": value for name, value in _figures(figures)}
        result |= {f"eval/task/{t}/accuracy/{mode}": task["accuracy"] for t, task in figures["tasks"].items()}
        if blind:
            result[f"eval/blind_accuracy/{mode}"] = blind[mode]["accuracy"]
            result[f"eval/image_gap/{mode}"] = figures["accuracy"] - blind[mode]["accuracy"]
    for name, modes in (sets or {}).items():
        for mode, figures in modes.items():
            result |= {f"eval_set/{name}/{metric}/{mode}": value for metric, value in _figures(figures)}
            result |= {f"eval_set/{name}/pass@{k}/{mode}": value for k, value in figures["pass"].items()}
    return result


def _figures(figures: Mapping[str, Any]) -> list[tuple[str, float]]:
    there = [name for name in PARTIAL_METRICS if figures.get(name) is not None]
    return [(name, figures[name]) for name in (*EVALUATION_METRICS, *there)]


def evaluation_metric_names(config: Config, tasks: Iterable[str]) -> list[str]:
    """Names of what is measured while a run of this config goes on."""
    evaluation, modes = config.evaluation, list(config.modes.kinds)
    names = []
    if evaluation.every_steps is not None:
        own = [*EVALUATION_METRICS, *PARTIAL_METRICS, *(BLIND_METRICS if evaluation.blind else ())]
        own += [f"task/{task}/accuracy" for task in tasks]
        names += [f"eval/{name}/{mode}" for name in own for mode in modes]
    for name, chosen in evaluation.sets.items():
        if evaluation.every(name) is not None:
            own = [*EVALUATION_METRICS, "accuracy_when_well_formed", *(f"pass@{k}" for k in chosen.pass_at)]
            names += [f"eval_set/{name}/{metric}/{mode}" for metric in own for mode in chosen.modes or modes]
    return names
