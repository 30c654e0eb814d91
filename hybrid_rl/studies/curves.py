"""Accuracy against tokens over the training, and when an arm first reached the best of the arm that only thinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hybrid_rl.studies.grid import Arm
from hybrid_rl.studies.inference import Interval, student
from hybrid_rl.studies.results import Outcome
from hybrid_rl.studies.table import long_only
from hybrid_rl.studies.training import TrainingCurves


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Means over the seeds of an arm at one evaluation; intervals are None with one seed."""

    when: str
    step: float
    tokens: float
    samples: Mapping[str, float]
    accuracy: Mapping[str, float]
    interval: Mapping[str, Interval | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How soon an arm was as good in a mode as the arm that only thinks ever was.

    MiniCPM-V 4.5 (arXiv 2509.18154) says of its hybrid training: 33.3 % of the long samples.

    Attributes:
        best: accuracy of the reference at its best evaluation.
        step: of the arm's first evaluation that was as good; None if none was.
        samples_percent: responses in the mode that the arm had trained on by then, as % of those that the reference
            had trained on at its best; likewise `tokens_percent` for the update tokens of all modes.
        samples_percent_of_all: the same samples as % of those that the reference trained on in all.
    """

    name: str
    reference: str
    mode: str
    best: float
    step: float | None
    samples_percent: float | None
    samples_percent_of_all: float | None
    tokens_percent: float | None


def make_curves(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, list[CurvePoint]]:
    """By arm, the evaluations that all its finished seeds have."""
    return {name: _curve(runs) for name, runs in outcomes.items() if runs}


def _curve(runs: Sequence[Outcome]) -> list[CurvePoint]:
    found = []
    for first in runs[0].points:
        points = [point for run in runs for point in run.points if point.when == first.when]
        if len(points) == len(runs):
            values = {mode: [p.accuracy[mode] for p in points if mode in p.accuracy] for mode in first.accuracy}
            found.append(
                CurvePoint(
                    when=first.when,
                    step=_mean([p.step for p in points]),
                    tokens=_mean([p.tokens for p in points]),
                    samples={mode: _mean([p.samples.get(mode, 0.0) for p in points]) for mode in first.samples},
                    accuracy={mode: _mean(entries) for mode, entries in values.items()},
                    interval={mode: student(entries) for mode, entries in values.items()},
                )
            )
    return sorted(found, key=lambda point: point.step)


def find_reached(arms: Sequence[Arm], curves: Mapping[str, Sequence[CurvePoint]], mode: str) -> list[Reached]:
    """For each arm with a reference that has evaluations on the way.

    Args:
        mode: the one that `modes.long_ratio` is the share of.
    """
    done = [arm for arm in arms if curves.get(arm.name)]
    found = []
    for arm in done:
        reference = long_only(arm, done)
        if reference is None or reference == arm:
            continue
        theirs = [point for point in curves[reference.name] if point.step > 0 and mode in point.accuracy]
        if len(theirs) < 2:  # without evaluations on the way nothing can be said
            continue
        best = max(theirs, key=lambda point: point.accuracy[mode])  # the earliest among equals
        ours = [point for point in curves[arm.name] if point.step > 0]
        first = next((point for point in ours if point.accuracy.get(mode, -1.0) >= best.accuracy[mode]), None)
        found.append(
            Reached(
                name=arm.name,
                reference=reference.name,
                mode=mode,
                best=best.accuracy[mode],
                step=first.step if first else None,
                samples_percent=_percent(first.samples[mode], best.samples[mode]) if first else None,
                samples_percent_of_all=_percent(first.samples[mode], theirs[-1].samples[mode]) if first else None,
                tokens_percent=_percent(first.tokens, best.tokens) if first else None,
            )
        )
    return found


def as_json(
    curves: Mapping[str, Sequence[CurvePoint]], reached: Sequence[Reached], training: TrainingCurves
) -> dict[str, Any]:
    """The content of `curves.json`."""
    return {
        "curves": {name: [asdict(point) for point in points] for name, points in curves.items()},
        "reached": [asdict(entry) for entry in reached],
        "training": {
            arm: {
                measure: {mode: [asdict(point) for point in points] for mode, points in by_mode.items()}
                for measure, by_mode in measures.items()
            }
            for arm, measures in training.items()
        },
    }


def sentence(entry: Reached) -> str:
    """The same for people."""
    head = f"best of {entry.reference} in {entry.mode} mode ({100 * entry.best:.1f} %)"
    if entry.step is None:
        return f"{entry.name} did not reach the {head}."
    parts = [
        f"{value:.1f} % of {what}"
        for value, what in (
            (entry.samples_percent, f"the {entry.mode} samples that it took"),
            (entry.samples_percent_of_all, f"all {entry.mode} samples of {entry.reference}"),
            (entry.tokens_percent, "its update tokens"),
        )
        if value is not None
    ]
    return f"{entry.name} first reached the {head} at step {entry.step:.0f}, with {', '.join(parts)}."


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None
