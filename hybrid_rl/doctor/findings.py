"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Grade(StrEnum):
    """How bad a finding is; with `refuse` the run would be for nothing."""

    OK = "ok"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        sentence: what was found; where something is amiss, also what to change.
        figures: the numbers behind it, by name with unit.
    """

    topic: str
    sentence: str
    grade: Grade = Grade.OK
    figures: dict[str, float | int | None] = field(default_factory=dict)


def spread(values: list[int]) -> str:
    """Least, median and most."""
    ordered = sorted(values)
    return f"{ordered[0]:,} to {ordered[-1]:,}, median {ordered[len(ordered) // 2]:,}"
