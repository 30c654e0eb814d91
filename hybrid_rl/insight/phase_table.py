"""The report's table of what each phase of a step did with the machine, and which kernels the run used."""

from __future__ import annotations

from collections.abc import Callable

from hybrid_rl.insight import formats
from hybrid_rl.insight.comparison import finite
from hybrid_rl.insight.names import WORKING_PHASES
from hybrid_rl.insight.recorded import RecordedRun
from hybrid_rl.machine.kernels import KernelChoice
from hybrid_rl.machine.sentences import describe_kernels

_COLUMNS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("forwarded_per_s", "tokens / s", formats.short_count),
    ("padding", "padding", formats.percent),
    ("peak_share", "of matrix peak", formats.percent),
    ("bandwidth_share", "of copy bandwidth", formats.percent),
    ("encodes_per_image", "encodes / image", formats.number),
)


def phase_table(run: RecordedRun) -> list[list[str]]:
    """Heads, and a row for each phase that was measured, as means over the steps; empty where none was."""
    rows = []
    for phase in WORKING_PHASES:
        found = [_mean(run, f"{figure}/{phase}") for figure, _, _ in _COLUMNS]
        if any(value is not None for value in found):
            rows.append([phase, *(write(value) for value, (_, _, write) in zip(found, _COLUMNS, strict=True))])
    return [["phase", *(head for _, head, _ in _COLUMNS)], *rows] if rows else []


def machine_sentences(run: RecordedRun) -> list[str]:
    """What the probe of the machine found and chose; empty for a run that did not record it."""
    found = KernelChoice.recorded(run.summary.get("machine"))
    if found is None:
        return []
    name = [found.device] if found.device else []
    return [*name, *(sentence for _, sentence in describe_kernels(found))]


def _mean(run: RecordedRun, name: str) -> float | None:
    values = [value for row in run.metrics if (value := finite(row.get(name))) is not None]
    return sum(values) / len(values) if values else None
