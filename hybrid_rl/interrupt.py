"""Ctrl-C and SIGTERM as a question that the loop asks at safe moments, instead of an exception anywhere."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from hybrid_rl.errors import Interrupted


class StopSignal:
    """While active, the first signal is remembered and the second one interrupts at once.

    Signal handlers belong to the main thread; elsewhere (a notebook's worker thread) this does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def check(self) -> None:
        """Raise `Interrupted` if the user has asked to stop."""
        if self.requested:
            raise Interrupted

    def arm(self) -> None:
        """Install the handlers; again, after a library has installed its own."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.signal(number, self._on_signal)
                self._previous.setdefault(number, handler)

    def __enter__(self) -> StopSignal:
        self.arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("stopping at the next safe moment; once more to stop at once", file=sys.stderr, flush=True)
