"""The two sides of a comparison, each in a process of its own that lives through all runs, and they take turns.

A process of its own has its own peak of memory and its own environment; living on, it is warm. One side waits, asleep
on its input, while the other runs. What a side prints besides goes to standard error.

    side = Side("ours", ["benchmarks.grpo_step", "--side", "ours"], {"OMP_NUM_THREADS": "2"})
    serve(measure, Turns())   # in that process: calls `measure` when it is told to, and answers with its figures
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

_GIB = 2**30

OTHERS = "others_cores"
"""Cores that processes outside of the benchmark used during a run."""


class Side:
    """A started process that measures when it is told to.

    Args:
        arguments: module and arguments of its `python -m`.
        environment: variables that differ from this process's; None takes one away.
        python: the interpreter, where it is not this process's.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str | None] | None = None,
        *,
        python: str = sys.executable,
    ) -> None:
        changed = {**os.environ, **(environment or {})}
        self.name = name
        self._process = subprocess.Popen(
            [python, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in changed.items() if value is not None},
        )
        self.facts: dict[str, Any] = self._answer()

    def run(self) -> dict[str, float]:
        """Measure once.

        Raises:
            RuntimeError: the process ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process, which ends when its input does."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}; see above for what it wrote")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Turns:
    """The other end, in the process of a side: waits for its turn and answers.

    Made early: from then on whatever is printed goes to standard error, and only answers where answers are read.
    """

    def __init__(self) -> None:
        self._channel = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def ready(self, facts: Mapping[str, Any] | None = None) -> None:
        """Say that the side is up, and what it is."""
        self._write(dict(facts or {}))

    def wait(self) -> bool:
        """Sleep until it is this side's turn; False once there is none any more."""
        return bool(sys.stdin.readline())

    def answer(self, figures: Mapping[str, float]) -> None:
        """The figures of the turn; the peak of memory, of this process and those under it, is added."""
        self._write({**figures, "peak_memory": tree_peak_gib()})

    def _write(self, value: Mapping[str, Any]) -> None:
        self._channel.write(json.dumps(value) + "\n")
        self._channel.flush()


def serve(measure: Callable[[], Mapping[str, float]], turns: Turns, facts: Mapping[str, Any] | None = None) -> None:
    """Answer every turn with `measure()`."""
    turns.ready(facts)
    while turns.wait():
        turns.answer(measure())


def peak_gib(process: int | None = None) -> float:
    """Largest resident size of this process, or another one, so far.

    Not `ru_maxrss`, which a process takes over from its parent.
    """
    try:
        with open(f"/proc/{process or 'self'}/status") as file:
            line = next(line for line in file if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / _GIB
    except (OSError, StopIteration):
        if process is not None:
            return 0.0
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB


def tree_peak_gib() -> float:
    """The peaks of this process and all under it, added up; memory that they share counts in each."""
    return peak_gib() + sum(peak_gib(child.pid) for child in psutil.Process().children(recursive=True))


def forget_peak() -> None:
    """Have `peak_gib` begin anew, where the system can (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return


def resident_gib() -> float:
    """Resident size of this process now."""
    return float(psutil.Process().memory_info().rss) / _GIB


def in_turn(
    sides: Sequence[Side], runs: int, *, warm_up: int = 1, deadline: float = float("inf")
) -> dict[str, list[dict[str, float]]]:
    """Figures of every side's counted runs, A B A B, so that a slow spell of the machine falls on all of them.

    Each run also says how many cores other processes used meanwhile.

    Args:
        deadline: of `time.monotonic()`; no round begins that would not end before it, but for the first counted one.
    """
    samples: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    longest = 0.0
    for round_ in range(runs + warm_up):
        start = time.monotonic()
        if round_ > warm_up and start + longest > deadline:
            break
        for side in sides:
            meter = OthersMeter()
            figures = side.run()
            if round_ >= warm_up:
                samples[side.name].append({**figures, OTHERS: meter.cores()})
        longest = time.monotonic() - start
    return samples


@dataclass(slots=True)
class OthersMeter:
    """Processor time that went to processes outside of this one's tree since the meter was made (`/proc/stat`)."""

    _busy_s: float = field(default_factory=lambda: _busy_s())
    _own_s: float = field(default_factory=lambda: _own_s())
    _began: float = field(default_factory=time.perf_counter)

    def cores(self) -> float:
        """Cores that others used on average; stolen time counts, as the cores were not there for us."""
        wall_s = time.perf_counter() - self._began
        return max(0.0, (_busy_s() - self._busy_s) - (_own_s() - self._own_s)) / max(wall_s, 1e-9)


def _busy_s() -> float:
    times = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are part of user
    return float(sum(value for name, value in times.items() if name not in idle))


def _own_s() -> float:
    this = psutil.Process()
    total = 0.0
    for process in (this, *this.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it ended meanwhile
            continue
        total += times.user + times.system
    return total + sum(this.cpu_times()[2:4])
