"""Where the seconds of a training step go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PhaseClock:
    """`with clock("generate"): ...` shows the phase and adds its seconds to `wall_s`.

    Args:
        show: told the phase that begins.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self.wall_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._show(phase)
        start = time.monotonic()
        yield
        self.wall_s[phase] = self.wall_s.get(phase, 0.0) + time.monotonic() - start
