"""Score, length and entropy over the steps of a training, by arm and mode (figure 3 of arXiv 2509.18154)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybrid_rl.studies.inference import Interval, student

MEASURES = {"score": "accuracy", "length": "tokens", "entropy": "entropy"}
"""What is drawn, and the metric of a mode that it is: mean accuracy of the sampled responses, their mean length in
tokens, and the mean entropy of the sampled tokens, in nats."""

Series = dict[tuple[str, str], dict[int, float]]
"""(measure, mode) -> step -> value, of one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPoint:
    """Mean over the seeds of an arm after a step; the interval is None with one seed."""

    step: int
    mean: float
    interval: Interval | None


TrainingCurves = dict[str, dict[str, dict[str, list[StepPoint]]]]
"""Arm -> measure -> mode -> points in the order of the steps."""


def read_series(rows: Iterable[Mapping[str, Any]], modes: Sequence[str]) -> Series:
    """The measures in the metrics of a run; steps without a response in a mode have none there."""
    found: Series = {}
    for row in rows:
        for measure, metric in MEASURES.items():
            for mode in modes:
                value = row.get(f"{metric}/{mode}")
                if row.get(f"prompts/{mode}") and isinstance(value, int | float):
                    found.setdefault((measure, mode), {})[int(row["step"])] = float(value)
    return found


def training_curves(runs: Mapping[str, Sequence[Series]]) -> TrainingCurves:
    """By arm, the means over its seeds at the steps that all of them have."""
    curves: TrainingCurves = {}
    for arm, series in runs.items():
        for measure, mode in dict.fromkeys(key for one in series for key in one):
            each = [one.get((measure, mode), {}) for one in series]
            steps = sorted(set.intersection(*(set(values) for values in each)))
            points = [_point(step, [values[step] for values in each]) for step in steps]
            if points:
                curves.setdefault(arm, {}).setdefault(measure, {})[mode] = points
    return curves


def _point(step: int, values: Sequence[float]) -> StepPoint:
    return StepPoint(step=step, mean=sum(values) / len(values), interval=student(values))
