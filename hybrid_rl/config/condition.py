"""A condition on a metric, as `run.stop_when` writes it: `NAME >= NUMBER`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*(\S+?)\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """`metric relation value`."""

    metric: str
    relation: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises a ValueError if the text is no condition."""
        found = _FORM.fullmatch(text)
        try:
            value = float(found[3]) if found else math.nan
        except ValueError:
            value = math.nan
        if found is None or not math.isfinite(value):
            raise ValueError(
                f"stop_when '{text}' is no condition; write a metric, one of >=, <=, > or <, and a number, such as "
                f"'eval/accuracy/long >= 0.9'"
            )
        return cls(found[1], found[2], value)

    def met(self, metrics: Mapping[str, float]) -> bool:
        """Whether the metric is there and fulfils it."""
        value = metrics.get(self.metric)
        return value is not None and _RELATIONS[self.relation](value, self.value)

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.value:g}"
