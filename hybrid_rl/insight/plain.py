"""What a run prints where nobody watches: plain lines for a log file, without any control characters."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self, TextIO

from hybrid_rl.insight import formats
from hybrid_rl.insight.clock import StepClock
from hybrid_rl.insight.recorded import mode_names
from hybrid_rl.insight.visible import one_line

_QUIET_SECONDS = 2.0
"""Between two step lines, unless the step's number is round."""
_ROUND = 10
_SHOWN = (("reward", "reward"), ("accuracy", "acc"), ("tokens", "tokens"))


def encodable(text: str, encoding: str | None) -> str:
    """The text as a stream of this encoding can take it; a log in ASCII must not stop a run."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def describe(fields: Mapping[str, str | float]) -> str:
    """`name value` pairs on one line."""
    return "  ".join(
        f"{one_line(name)} {one_line(value) if isinstance(value, str) else formats.number(value)}"
        for name, value in fields.items()
    )


def step_line(metrics: Mapping[str, float], modes: Iterable[str], total_steps: int, left: float | None) -> str:
    """A training step on one line."""
    step = int(metrics.get("step", 0))
    figures = []
    for mode in modes:
        shown = [
            f"{label} {formats.number(metrics[f'{name}/{mode}'])}"
            for name, label in _SHOWN
            if f"{name}/{mode}" in metrics
        ]
        if shown:
            figures.append(f"{one_line(mode)} {' '.join(shown)}")
    width = len(str(total_steps))
    pieces = [f"step {step:>{width + 1}}/{total_steps}", " | ".join(figures)]
    if "tokens_per_s" in metrics:
        pieces.append(f"{formats.count(metrics['tokens_per_s'])} tok/s")
    if left is not None:
        pieces.append(f"left {formats.duration(left)}")
    return "  ".join(piece for piece in pieces if piece)


class PlainView:
    """A `View` of plain lines.

    Steps: the first, the last, every tenth, and any that comes two seconds after the line before. Stages: at each
    tenth of the way.
    """

    def __init__(self, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._now = now
        self._clock = StepClock(now)
        self._name, self._total, self._tenth = "", 0, 0
        self._modes: dict[str, None] = {}
        self._last_line: float | None = None

    def note(self, text: str) -> None:
        self._print(one_line(text))

    def stage(self, name: str, total: int) -> None:
        self._name, self._total, self._tenth = one_line(name), total, 0
        self._clock.start_steps()
        self._print(f"{self._name}: {total:,}")

    def advance(self, done: int, fields: Mapping[str, str | float]) -> None:
        tenth = 10 * done // self._total if self._total > 0 else 10
        if tenth <= self._tenth:
            return
        self._tenth = tenth
        self._print(f"{self._name} {done:>{len(str(self._total))}}/{self._total}  {describe(fields)}".rstrip())

    def phase(self, name: str) -> None:
        """Nothing: phases change too often for a log, and `metrics.jsonl` has their seconds."""

    def step(self, metrics: Mapping[str, float], total_steps: int) -> None:
        self._clock.step()
        # In the order in which they were first seen: a step may draw its modes in any order, or lack one.
        self._modes |= dict.fromkeys(mode_names([metrics]))
        step, now = int(metrics.get("step", 0)), self._now()
        due = self._last_line is None or now - self._last_line >= _QUIET_SECONDS
        if due or step >= total_steps or step % _ROUND == 0:
            self._last_line = now
            left = self._clock.left(total_steps - step) if step < total_steps else None
            self._print(step_line(metrics, self._modes, total_steps, left))

    def close(self) -> None:
        """Nothing to restore."""

    def _print(self, line: str) -> None:
        # Looked up at each line: tests and notebooks exchange sys.stdout.
        stream = self._stream or sys.stdout
        print(encodable(line, stream.encoding), file=stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
