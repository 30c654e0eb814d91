"""The report's table of reward parts: what each has said lately, how much it decided, and what went wrong in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hybrid_rl.insight.names import PART_OUTCOMES
from hybrid_rl.insight.recorded import Metrics, RecordedRun

_RECENT_STEPS = 10
_MAX_ROWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """A part in a mode, over all sources or in one. Figures are means of the last ten steps; None: not recorded.

    Attributes:
        outcomes: how often it abstained, timed out and failed, over the whole run.
    """

    part: str
    mode: str
    place: int
    source: str
    mean: float | None
    std: float | None
    share: float | None
    ms: float | None
    ms_max: float | None
    outcomes: tuple[int, ...]


def part_rows(run: RecordedRun) -> list[PartRow]:
    """Rows by part, then mode, each followed by its sources."""
    names = _parts(run.metrics)
    rows = []
    for part, sources in names.items():
        for place, mode in enumerate(run.modes):
            rows += [
                _row(run, part, mode, place, source)
                for source in ("", *sources)
                if any(f"{_prefix(source)}part/{part}/{mode}" in metrics for metrics in run.metrics)
            ]
    return rows[:_MAX_ROWS]


def _parts(metrics: Sequence[Metrics]) -> dict[str, list[str]]:
    """Names of the parts, with the sources that have figures of their own."""
    found: dict[str, dict[str, None]] = {}
    for key in dict.fromkeys(key for row in metrics for key in row):
        if key.startswith("part/"):
            found.setdefault(key.removeprefix("part/").rpartition("/")[0], {})
    for key in dict.fromkeys(key for row in metrics for key in row):
        source, separator, rest = key.removeprefix("source/").partition("/part/")
        part = rest.rpartition("/")[0]
        if key.startswith("source/") and separator and part in found:
            found[part][source] = None
    return {part: list(sources) for part, sources in found.items()}


def _row(run: RecordedRun, part: str, mode: str, place: int, source: str) -> PartRow:
    prefix = _prefix(source)

    def recent(figure: str) -> float | None:
        key = f"{prefix}{figure}/{part}/{mode}"
        values = [row[key] for row in run.metrics if key in row][-_RECENT_STEPS:]
        return sum(values) / len(values) if values else None

    counts = tuple(
        int(sum(row.get(f"{prefix}outcome/{part}/{outcome.value}/{mode}", 0.0) for row in run.metrics))
        for outcome in PART_OUTCOMES
    )
    return PartRow(
        part=part,
        mode=mode,
        place=place,
        source=source,
        mean=recent("part"),
        std=recent("part_std"),
        share=recent("part_share"),
        ms=recent("part_ms"),
        ms_max=recent("part_ms_max"),
        outcomes=counts,
    )


def _prefix(source: str) -> str:
    return f"source/{source}/" if source else ""
