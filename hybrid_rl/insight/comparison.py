"""Two evaluations side by side: one row for each mode, and below it one for each of its tasks or sources."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybrid_rl.insight import intervals


def finite(value: object) -> float | None:
    """The value if it is a finite number, else None; a run folder may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One evaluated group of responses; None where the run folder does not say."""

    accuracy: float | None
    well_formed_accuracy: float | None
    tokens: float | None
    leak_rate: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        return intervals.wilson(self.accuracy, self.n) if self.accuracy is not None and self.n > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A mode (`name` empty) or one task or source of it, before and after."""

    mode: str
    name: str
    before: Result
    after: Result

    @property
    def difference(self) -> float | None:
        if self.before.accuracy is None or self.after.accuracy is None:
            return None
        return self.after.accuracy - self.before.accuracy

    @property
    def difference_interval(self) -> tuple[float, float] | None:
        a, b = self.before, self.after
        if a.accuracy is None or b.accuracy is None or a.n <= 0 or b.n <= 0:
            return None
        return intervals.difference(a.accuracy, a.n, b.accuracy, b.n)

    @property
    def verdict(self) -> str:
        """`up` or `down` where the interval of the difference leaves out zero, else `flat`."""
        interval = self.difference_interval
        if interval is None or interval[0] <= 0 <= interval[1]:
            return "flat"
        return "up" if interval[0] > 0 else "down"


def _result(entry: object) -> Result:
    values = mapping(entry)
    return Result(
        accuracy=finite(values.get("accuracy")),
        well_formed_accuracy=finite(values.get("accuracy_when_well_formed")),
        tokens=finite(values.get("mean_tokens")),
        leak_rate=finite(values.get("leak_rate")),
        n=int(finite(values.get("n")) or 0),
    )


def rows(before: object, after: object, split: str = "tasks") -> list[Row]:
    """Rows of two evaluations (`{mode: {...}}`) in the order of the modes; either may be missing or half there.

    Args:
        split: `tasks` or `sources`: what the rows below a mode stand for.
    """
    first, second = mapping(before), mapping(after)
    result = []
    for mode in dict.fromkeys([*first, *second]):
        old, new = mapping(first.get(mode)), mapping(second.get(mode))
        result.append(Row(mode=str(mode), name="", before=_result(old), after=_result(new)))
        old_split, new_split = mapping(old.get(split)), mapping(new.get(split))
        for name in dict.fromkeys([*old_split, *new_split]):
            pair = _result(old_split.get(name)), _result(new_split.get(name))
            result.append(Row(mode=str(mode), name=str(name), before=pair[0], after=pair[1]))
    return result
