"""Fair whole numbers: how many of the items numbered n..m-1 belong to each share, so that the totals never drift.

Items are handed out one after another. A share may take its next item once the share's exact entitlement has begun to
cover it, and among those that may, the one whose entitlement is complete first takes it. (This is earliest-deadline
scheduling of one processor, which is known to keep every total strictly within one item of the exact product. A total
that should be whole is therefore exact.) Rounding totals independently would not do: a count could become negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import gcd, isfinite, lcm

from hybrid_rl.errors import ConfigError

_LARGEST_DENOMINATOR = 10**6  # turns 0.1 and 1/3, which floats only approximate, back into the fractions meant
_ITEMS_BETWEEN_MARKS = 1024


def quotas(shares: Sequence[float], before: int, after: int) -> list[int]:
    """Whole counts of the items numbered before..after-1 for each share.

    The counts are never negative, sum to `after - before`, and add up over adjoining ranges. Totals from item 0 are
    within one item of the exact product, and equal to it where it is whole.

    Args:
        shares: non-negative, in any unit; they are divided by their sum. A share of less than half a millionth of
            the largest counts as none.

    Raises:
        ConfigError: no share is positive, one is negative or not finite, or the range runs backwards.
    """
    if not 0 <= before <= after:
        raise ConfigError(f"cannot share out items {before} to {after}; the range must run forwards from 0 or later")
    parts = _whole_parts(shares)
    return [late - early for late, early in zip(_totals(parts, after), _totals(parts, before), strict=True)]


def _whole_parts(shares: Sequence[float]) -> tuple[int, ...]:
    """The shares as whole numbers without a common divisor."""
    if not all(isfinite(share) and share >= 0 for share in shares) or not any(shares):
        raise ConfigError(f"shares {list(shares)} cannot be used; give numbers from 0 up, at least one above 0")
    largest = Fraction(max(shares))
    ratios = [(Fraction(share) / largest).limit_denominator(_LARGEST_DENOMINATOR) for share in shares]
    unit = lcm(*(ratio.denominator for ratio in ratios))
    parts = [int(ratio * unit) for ratio in ratios]
    divisor = gcd(*parts)
    return tuple(part // divisor for part in parts)


def _totals(parts: tuple[int, ...], num_items: int) -> list[int]:
    """How many of the first `num_items` items each part has had."""
    # After sum(parts) items everyone has had exactly their part, and the hand-out repeats.
    rounds, rest = divmod(num_items, sum(parts))
    return [rounds * part + count for part, count in zip(parts, _counts_within_round(parts, rest), strict=True)]


def _counts_within_round(parts: tuple[int, ...], num_items: int) -> tuple[int, ...]:
    # Counts at the marks are kept, so that a call late in a run need not hand out every item again.
    marks = _marks(parts)
    wanted = num_items // _ITEMS_BETWEEN_MARKS
    known = wanted
    while known not in marks:
        known -= 1
    counts = marks[known]
    for mark in range(known, wanted):
        counts = _hand_out(parts, counts, _ITEMS_BETWEEN_MARKS)
        marks[mark + 1] = counts
    return _hand_out(parts, counts, num_items - wanted * _ITEMS_BETWEEN_MARKS)


@lru_cache(maxsize=64)
def _marks(parts: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """A store, filled as it is used: mark number -> the counts at that mark."""
    return {0: (0,) * len(parts)}


def _hand_out(parts: tuple[int, ...], counts: Sequence[int], num_items: int) -> tuple[int, ...]:
    """Counts after `num_items` further items."""
    whole = sum(parts)
    given = list(counts)
    start = sum(given)
    for item in range(start, start + num_items):
        entitled = [s for s, part in enumerate(parts) if given[s] * whole < (item + 1) * part]
        # -(-a // b) rounds up: the item by which the share must have had its next one.
        given[min(entitled, key=lambda s: -(-(given[s] + 1) * whole // parts[s]))] += 1
    return tuple(given)
