"""Repetition: a loop detector after RLPR (arXiv 2506.18254), on token ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class Repetition:
    """-1 if any window of `window` tokens occurs at least `limit` times, else 0.

    It almost never fires on healthy text. A soft n-gram penalty grows with length, and so punishes thought.

    Args:
        window: tokens of the window (RLPR: 10 words).
        limit: occurrences that make a loop.
    """

    runs_in = "inline"

    def __init__(self, window: int = 10, limit: int = 5) -> None:
        if window < 1 or limit < 2:
            raise ValueError(f"window must be at least 1 and limit at least 2, not {window} and {limit}")
        self.window = window
        self.limit = limit

    def __call__(self, ids: Sequence[int]) -> float:
        windows = Counter(tuple(ids[i : i + self.window]) for i in range(len(ids) - self.window + 1))
        return -1.0 if any(count >= self.limit for count in windows.values()) else 0.0
