"""What the terminal shows while the runs of an ablation are under way. Their folders say how far they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from hybrid_rl.insight.formats import duration
from hybrid_rl.insight.recorded import read_run
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.studies.design import Trial

_POLL_S = 2.0
_BEFORE_END = 0.97
"""Share of a run's time that its steps take; the rest is its last evaluation."""


def share_done(trial: Trial) -> float:
    """How far a run is, in [0, 1]; 1 only for a finished one."""
    if not trial.folder.is_dir():
        return 0.0
    if RunFolder(trial.folder).summary().get("status") == "completed":
        return 1.0
    rows = read_run(trial.folder).metrics
    limits = trial.config.run
    share = rows[-1]["step"] / limits.steps if rows else 0.0
    if limits.max_update_tokens is not None:
        tokens = sum(value for row in rows for key, value in row.items() if key.startswith("update_tokens/"))
        share = max(share, tokens / limits.max_update_tokens)
    return _BEFORE_END * min(share, 1.0)


class TrialProgress:
    """One bar for the ablation and one for every run under way; lines where there is no terminal.

    Args:
        on_finished: called when further runs have finished, from a thread of its own.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        console: Console,
        on_finished: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trials = trials
        self._console = console
        self._on_finished = on_finished
        self._now = now
        self._began = now()
        self._shares = [share_done(trial) for trial in trials]
        self._first = sum(self._shares)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._all = self._bars.add_task("", total=max(1, len(trials)), left="")
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        self._show()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        self._bars.stop()

    @property
    def left_s(self) -> float | None:
        """Seconds that are left if the runs go on as they did since the start; None as long as nobody knows."""
        gone, todo = sum(self._shares) - self._first, len(self._shares) - sum(self._shares)
        return (self._now() - self._began) * todo / gone if gone > 0 else None

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_S):
            if self._look():
                self._on_finished()

    def _look(self) -> bool:
        """Read the folders anew; True if a run has finished since the last time."""
        before = self._shares
        self._shares = [share_done(trial) for trial in self._trials]
        ended = [i for i, (old, new) in enumerate(zip(before, self._shares, strict=True)) if old < 1 <= new]
        if not self._console.is_terminal:
            for place in ended:
                trial = self._trials[place]
                self._console.print(
                    f"finished     {trial.arm.name}, seed {trial.seed} ({self._done} of {len(self._trials)}; left "
                    f"{duration(self.left_s)})",
                    markup=False,
                )
        self._show()
        return bool(ended)

    @property
    def _done(self) -> int:
        return sum(share >= 1 for share in self._shares)

    def _show(self) -> None:
        self._bars.update(
            self._all,
            description=f"{self._done} of {len(self._trials)} runs",
            completed=sum(self._shares),
            left=f"left {duration(self.left_s)}",
        )
        for place, (trial, share) in enumerate(zip(self._trials, self._shares, strict=True)):
            if 0 < share < 1 and place not in self._tasks:
                name = f"{trial.arm.name}, seed {trial.seed}"
                self._tasks[place] = self._bars.add_task(name, total=1.0, left="")
            if place in self._tasks:
                self._bars.update(self._tasks[place], completed=share, visible=share < 1)
