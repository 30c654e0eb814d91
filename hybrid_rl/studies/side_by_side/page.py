"""`comparison.html`: runs on one page that needs no network and runs no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hybrid_rl.insight import charts, formats, intervals, palette
from hybrid_rl.insight.comparison import Result, Row, finite, mapping, rows
from hybrid_rl.insight.curves import evaluations
from hybrid_rl.insight.report import environment
from hybrid_rl.studies.side_by_side.panels import Panel, compared, mode_names, update_tokens
from hybrid_rl.studies.side_by_side.runs import NamedRun
from hybrid_rl.studies.side_by_side.settings import MAX_KEYS, differing_settings

_DASHES = ("", "5 2", "1.5 1.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run in the table of runs."""

    label: str
    place: int
    status: str
    steps: str
    seed: str
    time: str
    rollout_tokens: float
    update_tokens: float
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyRow:
    """A run, or one of its tasks (`task` not empty), in the table of a mode.

    Attributes:
        steps: of the two evaluations.
        against: after minus the first run's after, with Newcombe's interval; None for the first run itself, or where
            one of them has no such evaluation.
    """

    label: str
    place: int
    task: str
    steps: str
    row: Row
    against: tuple[float, float, float] | None

    @property
    def verdict(self) -> str:
        """`up` or `down` where the interval leaves out zero, else `flat`."""
        if self.against is None or self.against[1] <= 0 <= self.against[2]:
            return "flat"
        return "up" if self.against[1] > 0 else "down"


def render(runs: Sequence[NamedRun], title: str) -> str:
    """The page of at least two runs."""
    differing = differing_settings([named.run.config for named in runs])
    table = [_run_row(named) for named in runs]
    content = {
        "title": title,
        "facts": [("runs", str(len(runs))), ("keys that differ", f"{len(differing)}{'+' * _full(differing)}")],
        "runs": table,
        "most_tokens": max(max(row.rollout_tokens, row.update_tokens) for row in table) or 1,
        "accuracy": [(mode, found) for mode in mode_names(runs) if (found := _accuracy_rows(runs, mode))],
        "differing": differing,
        "all_keys_shown": not _full(differing),
        "quantities": [
            (there[0].quantity, [(panel, Markup(_svg(panel))) for panel in there])
            for panels in compared(runs)
            if (there := [panel for panel in panels if panel is not None])
        ],
        "light": palette.variables(dark=False),
        "dark": palette.variables(dark=True),
    }
    pages = environment(Path(__file__).parent)
    pages.filters["dashes"] = lambda place: _DASHES[place // len(palette.MODES) % len(_DASHES)]
    return pages.get_template("comparison.html.j2").render(content)


def _full(differing: Sequence[Any]) -> bool:
    return len(differing) >= MAX_KEYS


def _run_row(named: NamedRun) -> RunRow:
    run = named.run
    summary = run.summary
    wall_s = [value for key, entry in mapping(summary.get("wall_s")).items() if (value := finite(entry)) is not None]
    seconds = sum(wall_s) or sum(v for row in run.metrics for key, v in row.items() if key.startswith("wall_s/"))
    rollout = sum(v for row in run.metrics for key, v in row.items() if key.startswith("rollout_tokens/"))
    return RunRow(
        label=named.label,
        place=named.place,
        status=str(summary.get("status", "running or interrupted")),
        steps=formats.count(run.last_step),
        seed=str(summary.get("seed", formats.DASH)),
        time=formats.duration(seconds or None),
        rollout_tokens=rollout,
        update_tokens=update_tokens(run),
        path=str(run.path),
    )


def _accuracy_rows(runs: Sequence[NamedRun], mode: str) -> list[AccuracyRow]:
    """First and last evaluation of every run in a mode, each followed by its tasks."""
    found: list[AccuracyRow] = []
    first: dict[str, Result] = {}
    for named in runs:
        there = evaluations(named.run)
        if not there:
            continue
        before, after = (there[0] if len(there) > 1 else (0, {})), there[-1]
        steps = f"{before[0]} → {after[0]}" if len(there) > 1 else str(after[0])
        for row in rows(before[1], after[1]):
            if row.mode == mode:
                reference = first.setdefault(row.name, row.after) if named is runs[0] else first.get(row.name)
                found.append(
                    AccuracyRow(
                        label=named.label,
                        place=named.place,
                        task=row.name,
                        steps=steps,
                        row=row,
                        against=None if named is runs[0] or reference is None else _against(row.after, reference),
                    )
                )
    return found


def _against(own: Result, reference: Result) -> tuple[float, float, float] | None:
    if own.accuracy is None or reference.accuracy is None or own.n <= 0 or reference.n <= 0:
        return None
    interval = intervals.difference(reference.accuracy, reference.n, own.accuracy, own.n)
    return own.accuracy - reference.accuracy, *interval


def _svg(panel: Panel) -> str:
    quantity = panel.quantity
    lines = [
        charts.Line(place=curve.place, steps=curve.x, values=curve.y, band=curve.band, noisy=not quantity.total)
        for curve in panel.curves
    ]
    return charts.line_chart(lines, share=quantity.share, full_scale=quantity.full_scale, wide=True)
