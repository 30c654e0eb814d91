"""What was compared, how far off it was, and what was not compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


class BadSet(Exception):
    """The directory is no golden set; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity of one case. `max_error` is None where nothing could be measured: the case raised an error."""

    file: str
    case: str
    quantity: str
    max_error: float | None
    tolerance: float
    ok: bool


@dataclass(slots=True)
class Ledger:
    """All comparisons of a set. `file` and `case` say where the next ones belong."""

    comparisons: list[Comparison] = field(default_factory=list)
    not_run: list[dict[str, str]] = field(default_factory=list)
    file: str = ""
    case: str = ""

    @contextmanager
    def at(self, file: str, case: str) -> Iterator[None]:
        """Comparisons inside belong to this case; an error inside makes it fail instead of ending the check."""
        self.file, self.case = file, case
        try:
            yield
        except Exception as error:
            self._add(f"no result, {type(error).__name__}: {error}", None, 0.0)

    @contextmanager
    def reading(self, file: str) -> Iterator[None]:
        """A file that stops its own check, because it is missing or damaged, was not run; the others go on."""
        try:
            yield
        except Exception as error:
            self.skip(file, "all", f"{type(error).__name__}: {error}")

    def close(self, quantity: str, got: Any, expected: Any, tolerance: float) -> None:
        """Largest absolute difference."""
        self._measure(quantity, got, expected, tolerance, floor=None)

    def relative(self, quantity: str, got: Any, expected: Any, tolerance: float, floor: float) -> None:
        """Largest difference relative to the expected value; an absolute difference up to `floor` always passes."""
        self._measure(quantity, got, expected, tolerance, floor=floor)

    def same(self, quantity: str, got: Any, expected: Any) -> None:
        """Equal or not; the error is 0 or 1."""
        self._add(quantity, 0.0 if _plain(got) == _plain(expected) else 1.0, 0.0)

    def skip(self, file: str, case: str, why: str) -> None:
        """Note a case that could not be run; the check fails then."""
        self.not_run.append({"file": file, "case": case, "why": why})

    @property
    def ok(self) -> bool:
        """Everything was compared, and within its tolerance."""
        return not self.not_run and all(comparison.ok for comparison in self.comparisons)

    def report(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"cases": [asdict(comparison) for comparison in self.comparisons], "not_run": self.not_run}

    def _measure(self, quantity: str, got: Any, expected: Any, tolerance: float, floor: float | None) -> None:
        got, expected = _tensor(got), _tensor(expected)
        if got.shape != expected.shape:
            self._add(f"{quantity}, shape {list(got.shape)} instead of {list(expected.shape)}", None, tolerance)
            return
        difference = (got - expected).abs()
        if floor is not None:
            difference = difference / expected.abs().clamp(min=floor / tolerance)
        self._add(quantity, difference.max().item() if difference.numel() else 0.0, tolerance)

    def _add(self, quantity: str, error: float | None, tolerance: float) -> None:
        # Not-a-number and infinity have no place in JSON, and neither is a measured error.
        error = error if error is not None and math.isfinite(error) else None
        ok = error is not None and error <= tolerance
        self.comparisons.append(Comparison(self.file, self.case, quantity, error, tolerance, ok))


def _tensor(values: Any) -> Tensor:
    return values.detach().double() if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64)


def _plain(values: Any) -> Any:
    """Nested lists of plain numbers, so that tensors, tuples and JSON compare."""
    if hasattr(values, "tolist"):
        return values.tolist()
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    return [_plain(value) for value in values] if isinstance(values, list | tuple) else values
