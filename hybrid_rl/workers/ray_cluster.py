"""Workers as Ray actors. Beside `studies/tuning.py`, the only file of the project that talks to Ray."""

from __future__ import annotations

import logging
import math
from typing import Any

from hybrid_rl.config.cluster import ClusterConfig
from hybrid_rl.errors import ConfigError, WorkerDied
from hybrid_rl.interrupt import StopSignal
from hybrid_rl.quiet import quiet_environment
from hybrid_rl.workers.cluster import Handle, Pending

_POLL_S = 0.2
"""How often a wait looks whether the user has asked to stop."""


class _Host:
    """The Ray actor around a worker. Building is a call of its own: what it raises then arrives as it was raised."""

    def build(self, worker: type, *arguments: Any) -> None:
        self._worker = worker(*arguments)

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._worker, method)(*arguments)

    def call_kept(self, method: str, *arguments: Any) -> list[Any]:
        import ray

        # Inside a list a reference stays one; on its own it would be sent as what it stands for.
        return [ray.put(self.call(method, *arguments))]


class _RayPending:
    def __init__(self, name: str, references: list[Any], stop: StopSignal | None) -> None:
        self._name = name
        self._references = references
        self._stop = stop

    def __reduce__(self) -> tuple[type[_RayPending], tuple[Any, ...]]:
        # As with handles: the user's wish to stop is not sent along.
        return _RayPending, (self._name, self._references, None)

    def watched(self, stop: StopSignal) -> _RayPending:
        """The same call, waited for only as long as the user wants."""
        return _RayPending(self._name, self._references, stop)

    def result(self, *, interruptible: bool = True) -> Any:
        """The value of the last reference, once all are there."""
        return [self._wait(reference, interruptible) for reference in self._references][-1]

    def ready(self) -> bool:
        import ray

        count = len(self._references)
        return len(ray.wait(self._references, num_returns=count, timeout=0)[0]) == count

    def _wait(self, reference: Any, interruptible: bool) -> Any:
        import ray
        from ray.exceptions import OwnerDiedError, RayActorError, RayTaskError

        ready = False
        while not ready:
            # Before each wait, so that a run of quick calls stops too.
            if interruptible and self._stop is not None:
                self._stop.check()
            ready = bool(ray.wait([reference], timeout=_POLL_S)[0])
        try:
            return ray.get(reference)
        except RayTaskError as error:
            # The worker's own exception, not Ray's wrapping of it: a bad image is bad data wherever it was opened.
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception):
                cause.add_note(str(error))
                raise cause from None
            raise
        except (RayActorError, OwnerDiedError) as error:
            raise WorkerDied(
                f"a {self._name} has died: its process crashed, was killed or ran out of memory"
            ) from error


class _Kept:
    """A value that stays in the object store; the result is the reference to it."""

    def __init__(self, pending: _RayPending) -> None:
        self._pending = pending

    def result(self, *, interruptible: bool = True) -> Any:
        return self._pending.result(interruptible=interruptible)[0]

    def ready(self) -> bool:
        return self._pending.ready()


class _RayHandle:
    """Workers may be given handles to others. The user's wish to stop stays with the driver, which waits for them."""

    def __init__(self, name: str, actor: Any, built: Any, stop: StopSignal | None) -> None:
        self._name = name
        self._actor = actor
        self._built = built
        self._stop = stop

    def __reduce__(self) -> tuple[type[_RayHandle], tuple[Any, ...]]:
        return _RayHandle, (self._name, self._actor, self._built, None)

    def call(self, method: str, *arguments: Any) -> Pending:
        return _RayPending(self._name, [self._built, self._actor.call.remote(method, *arguments)], self._stop)

    def call_kept(self, method: str, *arguments: Any) -> Pending:
        kept = _RayPending(self._name, [self._built, self._actor.call_kept.remote(method, *arguments)], self._stop)
        return _Kept(kept)


def gpu_share(num_gpus: float, num_workers: int) -> float:
    """The largest equal share of a GPU with which all workers find a place; a share never spans two GPUs."""
    if num_gpus < 1:
        return 0.0
    per_gpu = math.ceil(num_workers / math.floor(num_gpus))
    # Ray counts in steps of 1e-4; rounding up would leave no room for the last worker.
    return math.floor(1e4 / per_gpu) / 1e4


def slots(num_gpus: float, share: float) -> int:
    """How many workers of a share find a place."""
    if share >= 1:
        return math.floor(num_gpus / share)
    return math.floor(num_gpus) * math.floor(1 / share + 1e-9)


class RayCluster:
    """Joins the Ray cluster that `RAY_ADDRESS` names, or starts one for this run on this machine.

    Usage reports and the dashboard are off; Ray's token authentication stays on, as is its default.

    Args:
        num_gpu_workers: how many workers want a GPU, to share out those that exist.
    """

    overlaps = True

    def __init__(self, config: ClusterConfig, stop: StopSignal, num_gpu_workers: int) -> None:
        environment = quiet_environment()
        import ray

        self._stop = stop
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            runtime_env={"env_vars": environment},
        )
        stop.arm()  # Ray has a SIGTERM handler of its own, which would end the run without a checkpoint
        num_gpus = ray.cluster_resources().get("GPU", 0.0)
        self._gpus = gpu_share(num_gpus, num_gpu_workers) if config.gpus_per_worker is None else config.gpus_per_worker
        if self._gpus > 0 and num_gpu_workers > slots(num_gpus, self._gpus):
            raise ConfigError(
                f"cluster.gpus_per_worker is {self._gpus:g}, too much for {num_gpu_workers} workers on {num_gpus:g} "
                f"GPUs that Ray finds; lower it"
            )

    def start(self, worker: type, *arguments: Any, gpu: bool = True) -> Handle:
        import ray

        # No CPU is reserved: workers take turns, and Ray must not refuse one for want of cores.
        # The process is named after the worker, for those who look at a list of processes.
        host = type(worker.__name__, (_Host,), {})
        remote: Any = ray.remote(num_cpus=0, num_gpus=self._gpus if gpu else 0)(host)
        actor = remote.remote()
        return _RayHandle(worker.__name__, actor, actor.build.remote(worker, *arguments), self._stop)

    def adopt(self, pending: Pending) -> Pending:
        assert isinstance(pending, _RayPending)
        return pending.watched(self._stop)

    def close(self) -> None:
        import ray

        ray.shutdown()
