"""What the terminal shows during a run: a panel that is redrawn in place, or plain lines where there is no terminal.

Names and texts from outside become `rich.text.Text`, which knows no markup, after `one_line` took their control
characters.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from hybrid_rl.insight import formats, palette
from hybrid_rl.insight.clock import StepClock
from hybrid_rl.insight.plain import PlainView, describe, encodable
from hybrid_rl.insight.recorded import mode_names
from hybrid_rl.insight.table import before_after_table
from hybrid_rl.insight.visible import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

__all__ = ["LiveView", "PlainView", "View", "before_after_table", "make_view"]

BASELINE_STEPS = 5
"""The change is that of the last five steps against the first five: single steps are noise."""
_COLUMNS = (("reward", "reward", 1), ("accuracy", "accuracy", 1), ("tokens", "tokens", 0), ("leaked", "leaked", -1))
"""Metric, head, and whether more of it is good (1), bad (-1) or neither."""
_SHARES = ("accuracy", "leaked")


class View(Protocol):
    """What a run tells the person at the terminal. All methods but `close` may be called in any order."""

    def note(self, text: str) -> None:
        """One line that stays."""
        ...

    def stage(self, name: str, total: int) -> None:
        """A stage ("warm-up", "training") of `total` units begins."""
        ...

    def advance(self, done: int, fields: Mapping[str, str | float]) -> None:
        """`done` units of the current stage are done. Training reports by `step` instead."""
        ...

    def phase(self, name: str) -> None:
        """What happens now: "generate", "score" ..."""
        ...

    def step(self, metrics: Mapping[str, float], total_steps: int) -> None:
        """A training step has ended; metrics as in `metrics.jsonl`."""
        ...

    def close(self) -> None:
        """Give the terminal back. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_view(live: bool | None = None) -> View:
    """A live view or a plain one; None: live if stdout is a terminal that can draw the panel."""
    if live is None:
        live = sys.stdout.isatty() and "utf" in (sys.stdout.encoding or "").lower()
    return LiveView() if live else PlainView()


class LiveView:
    """A `View` that redraws one panel in place; notes scroll by above it."""

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = console or Console()
        self._clock = StepClock(now)
        self._name, self._phase, self._fields = "starting", "", ""
        self._done, self._total = 0, 0
        self._metrics: Mapping[str, float] = {}
        self._first: list[Mapping[str, float]] = []
        self._recent: deque[Mapping[str, float]] = deque(maxlen=BASELINE_STEPS)
        self._steps_seen = 0
        self._mode_order: tuple[str, ...] = ()
        self._live = Live(
            console=self._console, get_renderable=self._panel, refresh_per_second=4, vertical_overflow="ellipsis"
        )
        self._live.start()

    def note(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(encodable(one_line(text), self._console.encoding)))

    def stage(self, name: str, total: int) -> None:
        self._name, self._total, self._done = one_line(name), total, 0
        self._phase = self._fields = ""
        self._clock.start_steps()
        self._live.refresh()

    def advance(self, done: int, fields: Mapping[str, str | float]) -> None:
        self._done, self._fields = done, describe(fields)

    def phase(self, name: str) -> None:
        self._phase = one_line(name)

    def step(self, metrics: Mapping[str, float], total_steps: int) -> None:
        metrics = dict(metrics)
        self._clock.step()
        self._steps_seen += 1
        # In the order in which they were first seen: a step may draw its modes in any order, or lack one.
        self._mode_order = tuple(dict.fromkeys([*self._mode_order, *mode_names([metrics])]))
        if len(self._first) < BASELINE_STEPS:
            self._first.append(metrics)
        self._recent.append(metrics)
        self._metrics, self._total, self._done = metrics, total_steps, int(metrics.get("step", self._steps_seen))
        # Not for every step: steps of a tiny model take milliseconds, drawing takes about as long.
        if self._steps_seen == 1 or self._done >= total_steps:
            self._live.refresh()

    def close(self) -> None:
        try:
            self._live.stop()
        finally:
            # Even if the last drawing failed; a terminal that is gone needs no cursor.
            with contextlib.suppress(OSError, ValueError):
                self._console.show_cursor(True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _panel(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        pieces: list[RenderableType] = [self._progress()]
        if self._metrics:
            pieces += [Text(), self._modes(), Text()]
        pieces.append(self._times())
        return Panel(
            Group(*pieces),
            title=Text("hybrid-rl", style="bold"),
            title_align="left",
            box=box.ROUNDED,
            border_style="dim",
            padding=(0, 1),
            width=min(self._console.width, 88),
        )

    def _progress(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 2), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True, justify="right")
        name = Text.assemble((self._name, "bold"), f"  {self._done:,}/{self._total:,}" if self._total else "")
        share = min(max(self._done / self._total, 0.0), 1.0) if self._total > 0 else 0.0
        bar = ProgressBar(total=1.0, completed=share, complete_style="cyan", finished_style="green")
        line.add_row(name, bar, Text(f"{100 * share:.0f} %"))
        return line

    def _modes(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        table.add_column("mode", no_wrap=True)
        for _, head, _ in _COLUMNS:
            table.add_column(head, justify="left", no_wrap=True)
        for place, mode in enumerate(self._mode_order):
            # The bright half of the palette: most terminals are dark, and it is readable on a light one.
            colour = palette.MODES[place % len(palette.MODES)][1]
            table.add_row(
                Text(one_line(mode), style=f"bold {colour}"),
                *(self._cell(name, mode, good) for name, _, good in _COLUMNS),
            )
        return table

    def _cell(self, name: str, mode: str, good: int) -> Text:
        from rich.text import Text

        key = f"{name}/{mode}"
        write = formats.percent if name in _SHARES else formats.number
        cell = Text(write(self._metrics.get(key)).rjust(7))
        first = [row[key] for row in list(self._first) if key in row]
        recent = [row[key] for row in list(self._recent) if key in row]
        if self._steps_seen > BASELINE_STEPS and first and recent:
            change = sum(recent) / len(recent) - sum(first) / len(first)
            text = formats.points(change) if name in _SHARES else formats.signed(change, 2 if abs(change) < 10 else 0)
            cell.append(f" {text}", style="dim" if not change * good else "green" if change * good > 0 else "red")
        return cell

    def _times(self) -> RenderableType:
        from rich.text import Text

        left = self._clock.left(self._total - self._done) if self._metrics else None
        pieces = [self._phase, self._fields]
        if "tokens_per_s" in self._metrics:
            pieces.append(f"{formats.count(self._metrics['tokens_per_s'])} tok/s")
        pieces += [f"elapsed {formats.duration(self._clock.elapsed)}", f"left {formats.duration(left)}" if left else ""]
        return Text("  ·  ".join(piece for piece in pieces if piece), style="dim", overflow="ellipsis", no_wrap=True)
