"""95 % intervals of shares and of their differences."""

from __future__ import annotations

import math

_Z = 1.959963984540054
"""97.5 % point of the normal distribution."""


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of a share seen over `n` trials. It stays inside [0, 1] and is honest near both ends."""
    if n <= 0:
        return 0.0, 1.0
    share = min(max(share, 0.0), 1.0)
    spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    centre, scale = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def difference(before: float, n_before: int, after: float, n_after: int) -> tuple[float, float]:
    """Newcombe's interval of `after - before`, made of the two Wilson intervals.

    It treats the two evaluations as independent; they share their questions, so it is rather too wide than too narrow.
    """
    low_b, high_b = wilson(before, n_before)
    low_a, high_a = wilson(after, n_after)
    gap = after - before
    return (
        gap - math.sqrt((after - low_a) ** 2 + (high_b - before) ** 2),
        gap + math.sqrt((high_a - after) ** 2 + (before - low_b) ** 2),
    )
