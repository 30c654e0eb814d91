"""Where workers live. Two executors behind one seam: in this process, or as Ray actors (`ray_cluster`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

from hybrid_rl.errors import BroadcastBroken
from hybrid_rl.interrupt import StopSignal

_POLL_S = 0.01
"""How often calls that wait for each other are looked at: far below what a transfer takes."""
_GRACE_S = 5.0
"""How long after a complaint the worker that has died is looked for."""


class Pending(Protocol):
    """A call on its way."""

    def result(self, *, interruptible: bool = True) -> Any:
        """Wait for the value; raises what the call raised, or `Interrupted` if the user asks to stop meanwhile."""
        ...

    def ready(self) -> bool:
        """Whether `result` would return or raise without waiting."""
        ...


class Handle(Protocol):
    """A worker, wherever it lives. May be an argument of another worker's."""

    def call(self, method: str, *arguments: Any) -> Pending: ...

    def call_kept(self, method: str, *arguments: Any) -> Pending:
        """As `call`, but the value stays where all workers can read it, and never comes here.

        The result may be an argument of other calls, which are given the value.
        """
        ...


class Cluster(Protocol):
    """Starts workers.

    Attributes:
        overlaps: workers work while their caller goes on.
    """

    overlaps: bool

    def start(self, worker: type, *arguments: Any, gpu: bool = True) -> Handle:
        """Start a worker: `worker(*arguments)` in its own process, or here."""
        ...

    def adopt(self, pending: Pending) -> Pending:
        """A call that a worker has made and handed on, for this process to wait for as for its own."""
        ...

    def close(self) -> None: ...


def gather(pending: Sequence[Pending], *, interruptible: bool = True) -> list[Any]:
    """Wait for all."""
    return [item.result(interruptible=interruptible) for item in pending]


def gather_joined(pending: Sequence[Pending]) -> list[Any]:
    """Wait for calls that wait for each other. What one raises is raised at once, though others would wait for long.

    Raises:
        WorkerDied: which worker, if the others' complaints are followed by that within a few seconds.
    """
    waiting = list(pending)
    broken: BroadcastBroken | None = None
    until = math.inf
    while waiting and time.monotonic() < until:
        for item in [item for item in waiting if item.ready()]:
            waiting.remove(item)
            try:
                item.result(interruptible=False)
            except BroadcastBroken as error:
                # The one that has died says more; its death may be known a moment later.
                broken, until = error, min(until, time.monotonic() + _GRACE_S)
        if waiting:
            time.sleep(_POLL_S)
    if broken is not None:
        raise broken
    return gather(pending, interruptible=False)


class _Done:
    def __init__(self, value: Any, stop: StopSignal | None) -> None:
        self._value = value
        self._stop = stop

    def result(self, *, interruptible: bool = True) -> Any:
        if interruptible and self._stop is not None:
            self._stop.check()
        return self._value

    def ready(self) -> bool:
        return True


class InProcess:
    """A worker in this process, made when it is first called; a call is finished when it returns."""

    def __init__(self, make: Callable[[], Any], stop: StopSignal | None = None) -> None:
        self._make = make
        self._stop = stop

    @cached_property
    def _worker(self) -> Any:
        return self._make()

    def call(self, method: str, *arguments: Any) -> Pending:
        return _Done(getattr(self._worker, method)(*arguments), self._stop)

    def call_kept(self, method: str, *arguments: Any) -> Pending:
        return self.call(method, *arguments)


class LocalCluster:
    """The same worker classes in this process."""

    overlaps = False

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop

    def start(self, worker: type, *arguments: Any, gpu: bool = True) -> Handle:
        made = worker(*arguments)
        return InProcess(lambda: made, self._stop)

    def adopt(self, pending: Pending) -> Pending:
        return pending

    def close(self) -> None:
        return None
