"""What the finished runs of an ablation have recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from hybrid_rl.run_folder import RunFolder
from hybrid_rl.studies.design import Trial
from hybrid_rl.studies.training import Series, read_series

Items = dict[tuple[str, int], float]
"""Accuracy of a response by (prompt id, how many of that id came before)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An evaluation on the way.

    Attributes:
        step: training steps before it.
        tokens: update tokens before it, over all modes.
        samples: responses trained on before it, by mode.
        accuracy: by mode.
        when: `before`, `after`, or the step as a word: the points of several seeds that belong together.
    """

    when: str
    step: int
    tokens: float
    samples: Mapping[str, float]
    accuracy: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished run.

    Attributes:
        before, after: evaluations as in summary.json; `before` may be empty.
        tokens: `rollout` and `update`, over all modes.
        items: by mode, of the evaluation after training.
        points: in the order of the training.
        training: see `hybrid_rl.studies.training`.
    """

    seed: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    tokens: Mapping[str, float]
    items: Mapping[str, Items]
    points: tuple[Point, ...]
    training: Series = field(default_factory=dict)


def read_outcomes(trials: Iterable[Trial]) -> dict[str, list[Outcome]]:
    """By arm; runs that are not finished are left out."""
    found: dict[str, list[Outcome]] = {}
    for trial in trials:
        outcomes = found.setdefault(trial.arm.name, [])
        if is_finished(trial):
            outcomes.append(_read(trial))
    return found


def is_finished(trial: Trial) -> bool:
    return RunFolder(trial.folder).summary().get("status") == "completed"


def _read(trial: Trial) -> Outcome:
    folder = RunFolder(trial.folder)
    summary = folder.summary()
    items: dict[str, Items] = {}
    seen: Counter[tuple[str, str]] = Counter()
    path = folder.evaluation_items("after")
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        key = row["mode"], row["prompt_id"]
        items.setdefault(row["mode"], {})[row["prompt_id"], seen[key]] = row["accuracy"]
        seen[key] += 1
    return Outcome(
        seed=trial.seed,
        before=summary["eval"].get("before", {}),
        after=summary["eval"]["after"],
        tokens={kind: sum(tokens[kind] for tokens in summary["tokens"].values()) for kind in ("rollout", "update")},
        items=items,
        points=tuple(_points(trial, summary)),
        training=read_series(folder.metrics(), list(trial.config.modes.kinds)),
    )


def _points(trial: Trial, summary: Mapping[str, Any]) -> Iterable[Point]:
    folder = RunFolder(trial.folder)
    rows = folder.metrics()
    kinds = list(trial.config.modes.kinds)
    group = trial.config.train.responses_per_prompt  # for rows of earlier versions, which did not count responses
    tokens = [0.0, *accumulate(sum(row.get(f"update_tokens/{kind}", 0.0) for kind in kinds) for row in rows)]
    samples = {
        kind: [0.0, *accumulate(row.get(f"responses/{kind}", group * row.get(f"prompts/{kind}", 0.0)) for row in rows)]
        for kind in kinds
    }
    last = int(summary["steps"])
    found = [("before", 0, summary["eval"].get("before"))]
    found += [(str(row["step"]), row["step"], row.get("eval")) for row in folder.evaluations() if row["step"] != last]
    found += [("after", last, summary["eval"]["after"])]
    for when, step, evaluation in found:
        if evaluation and step < len(tokens):
            yield Point(
                when=when,
                step=step,
                tokens=tokens[step],
                samples={kind: values[step] for kind, values in samples.items()},
                accuracy={mode: figures["accuracy"] for mode, figures in evaluation.items()},
            )
