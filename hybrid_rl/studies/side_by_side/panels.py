"""What is drawn of runs: one panel for each quantity and mode, with a curve for every run that has it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hybrid_rl.insight import formats
from hybrid_rl.insight.comparison import Result, rows
from hybrid_rl.insight.curves import evaluations
from hybrid_rl.insight.names import MODE_METRICS
from hybrid_rl.insight.recorded import RecordedRun
from hybrid_rl.studies.side_by_side.runs import NamedRun

Across = Literal["training step", "update tokens"]
Points = tuple[list[float], list[float], list[tuple[float, float]]]
"""Across, up, and the interval of each point, where there is one."""
Measure = Callable[[RecordedRun, str], Points]
"""The points of a run in a mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line. `place` gives its colour; `band` is a 95 % interval around each value, where there is one."""

    label: str
    place: int
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """Something measured along a run.

    Attributes:
        share: in [0, 1], drawn as a percentage; `full_scale`: always up to 100 %.
        total: a sum so far, which needs no smoothing and whose last value counts.
    """

    title: str
    note: str
    curve: Measure
    across: Across = "training step"
    share: bool = False
    full_scale: bool = False
    total: bool = False

    def latest(self, curve: Curve) -> str:
        """Where a curve stands: its last value if it is a total or an evaluation, else the mean of the last ten."""
        values = curve.y[-1:] if self.total or curve.band else curve.y[-10:]
        mean = sum(values) / len(values)
        return (
            formats.short_count(mean) if self.total else formats.percent(mean) if self.share else formats.number(mean)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The curves of a quantity: those of the runs in one mode, or those of the modes of one run (`mode` empty)."""

    quantity: Quantity
    mode: str
    curves: list[Curve] = field(default_factory=list)


def _metric(name: str) -> Measure:
    def curve(run: RecordedRun, mode: str) -> Points:
        pairs = [(row["step"], row[f"{name}/{mode}"]) for row in run.metrics if f"{name}/{mode}" in row]
        return [step for step, _ in pairs], [value for _, value in pairs], []

    return curve


def _total(name: str) -> Measure:
    def curve(run: RecordedRun, mode: str) -> Points:
        steps, values, _ = _metric(name)(run, mode)
        return steps, list(itertools.accumulate(values)), []

    return curve


def _evaluated(run: RecordedRun, mode: str) -> list[tuple[int, Result]]:
    return [
        (step, row.after)
        for step, table in evaluations(run)
        for row in rows({}, table)
        if row.mode == mode and not row.name and row.after.accuracy is not None
    ]


def _accuracy(run: RecordedRun, mode: str) -> Points:
    found = _evaluated(run, mode)
    values = [result.accuracy or 0.0 for _, result in found]
    band = [result.interval or (value, value) for value, (_, result) in zip(values, found, strict=True)]
    return [float(step) for step, _ in found], values, band


def _accuracy_of_tokens(run: RecordedRun, mode: str) -> Points:
    """The tokens are those of all modes: what a run has cost when it was as good in this one."""
    steps, values, band = _accuracy(run, mode)
    return [update_tokens(run, step) for step in steps], values, band


def update_tokens(run: RecordedRun, step: float | None = None) -> float:
    """Tokens that the loss was computed on up to a step, or in all, over all modes."""
    return sum(
        value
        for row in run.metrics
        if step is None or row["step"] <= step
        for key, value in row.items()
        if key.startswith("update_tokens/")
    )


def _plain(title: str, name: str, *, share: bool = False, full_scale: bool = False) -> Quantity:
    return Quantity(title=title, note=MODE_METRICS[name], curve=_metric(name), share=share, full_scale=full_scale)


def _sum(title: str, name: str) -> Quantity:
    return Quantity(title=title, note=f"{MODE_METRICS[name]}, in all so far", curve=_total(name), total=True)


_EVALUATION = "share of right answers on the evaluation split, with 95 % intervals (Wilson)"
QUANTITIES = (
    Quantity(title="Evaluation accuracy", note=_EVALUATION, curve=_accuracy, share=True, full_scale=True),
    Quantity(
        title="Evaluation accuracy against tokens",
        note="across: tokens that the loss was computed on so far, in all modes",
        curve=_accuracy_of_tokens,
        across="update tokens",
        share=True,
        full_scale=True,
    ),
    _plain("Reward", "reward"),
    _plain("Training accuracy", "accuracy", share=True, full_scale=True),
    _plain("Response length", "tokens"),
    _plain("Entropy", "entropy"),
    _plain("Leaked", "leaked", share=True),
    _plain("Thought where none is asked for", "leaked_thought", share=True),
    _plain("Truncated", "truncated", share=True),
    _plain("Groups without variance", "zero_variance", share=True, full_scale=True),
    _sum("Rollout tokens", "rollout_tokens"),
    _sum("Update tokens", "update_tokens"),
)


def mode_names(runs: Sequence[NamedRun]) -> list[str]:
    """The modes of all runs, in order of appearance."""
    return list(dict.fromkeys(mode for named in runs for mode in named.run.modes))


def compared(runs: Sequence[NamedRun]) -> Iterator[list[Panel | None]]:
    """For every quantity that a run has, a panel for each mode; None for a mode that has no such figure."""
    for quantity in QUANTITIES:
        panels = [_panel(quantity, mode, [(n.label, n.place, n.run, mode) for n in runs]) for mode in mode_names(runs)]
        if any(panel.curves for panel in panels):
            yield [panel if panel.curves else None for panel in panels]


def of_one(run: RecordedRun) -> list[Panel]:
    """For every quantity that the run has, a panel with the curves of its modes."""
    panels = [
        _panel(quantity, "", [(mode, place, run, mode) for place, mode in enumerate(run.modes)])
        for quantity in QUANTITIES
    ]
    return [panel for panel in panels if panel.curves]


def _panel(quantity: Quantity, mode: str, wanted: Sequence[tuple[str, int, RecordedRun, str]]) -> Panel:
    curves = []
    for label, place, run, name in wanted:
        x, y, band = quantity.curve(run, name)
        if y:
            curves.append(Curve(label=label, place=place, x=x, y=y, band=band))
    return Panel(quantity=quantity, mode=mode, curves=curves)
