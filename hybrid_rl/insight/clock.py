"""How long a run has taken and will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class StepClock:
    """Elapsed time, and the time left from a moving average of the last steps.

    Whatever happens between two steps, an evaluation say, counts to the later one: it will come again.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, window: int = 20) -> None:
        self._now = now
        self._started = self._mark = now()
        self._durations: deque[float] = deque(maxlen=window)

    def start_steps(self) -> None:
        """If no step has ended yet, the first begins now; what came before, a warm-up say, is none of its time."""
        if not self._durations:
            self._mark = self._now()

    def step(self) -> None:
        """A step has ended."""
        now = self._now()
        self._durations.append(now - self._mark)
        self._mark = now

    @property
    def elapsed(self) -> float:
        return self._now() - self._started

    def left(self, steps: int) -> float | None:
        """Seconds that `steps` more steps will take; None before the first."""
        if not self._durations:
            return None
        return max(steps, 0) * sum(self._durations) / len(self._durations)
