"""Intervals over seeds and over items.

A seed decides initial weights, warm-up, prompt order and sampling of a run, so seeds are the unit that varies. Runs of
one seed share all of it but the swept keys: their differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
_LEVEL = 0.95
_SEED = 20_250_918
"""Intervals are equal for equal runs, whoever computes them."""

Interval = tuple[float, float]


def student(values: Sequence[float]) -> Interval | None:
    """Student's 95 % interval of the mean, n - 1 degrees of freedom; None with fewer than two values."""
    from scipy import stats

    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, len(values) - 1)) * error
    return mean - half, mean + half


def paired_bootstrap(
    differences: Sequence[npt.NDArray[np.float64]], resamples: int = RESAMPLES, seed: int = _SEED
) -> Interval | None:
    """95 % percentile interval of a mean difference, seeds and items resampled with replacement (two stages).

    Each resample draws as many seeds as there are, and in each drawn seed as many items as it has; its statistic is
    the mean over the drawn seeds of their mean differences. Only whole pairs are drawn, so what the two runs of a pair
    share cancels.

    Args:
        differences: of each seed, the difference of every item [N].

    Returns:
        None with fewer than two seeds.
    """
    if len(differences) < 2:
        return None
    random = np.random.default_rng(seed)
    drawn_BS = random.integers(len(differences), size=(resamples, len(differences)))
    means_BS = np.empty(drawn_BS.shape)
    for place, items_N in enumerate(differences):
        where = drawn_BS == place
        # How often each distinct value is drawn is multinomial: the same as drawing items, without an array of them.
        values_K, counts_K = np.unique(items_N, return_counts=True)
        drawn = random.multinomial(len(items_N), counts_K / len(items_N), size=int(where.sum()))
        means_BS[where] = drawn @ values_K / len(items_N)
    tail = 50 * (1 - _LEVEL)
    low, high = np.percentile(means_BS.mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)
