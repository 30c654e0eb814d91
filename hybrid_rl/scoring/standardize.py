"""Values that are only comparable within a group (a preference model's), made comparable with everything else."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

_MIN_STD = 1e-6
_LIMIT = 3.0


def standardize(values: Sequence[float | None]) -> list[float]:
    """(value - mean) / std of the values of a group, clipped to [-3, 3].

    The standard deviation is the unbiased one, as in the advantage. Values that are missing, alone or all alike give 0.
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return [0.0] * len(values)
    mean, std = statistics.fmean(known), statistics.stdev(known)
    if std < _MIN_STD:
        return [0.0] * len(values)
    return [0.0 if value is None else min(_LIMIT, max(-_LIMIT, (value - mean) / std)) for value in values]
