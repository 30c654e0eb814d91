"""The runs of an ablation as trials of Ray Tune. Each is a process of its own with an executor of its own.

What is finished is told by the run folders, not by Tune, so that an ablation survives whatever ends this process.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_rl.quiet import quiet_environment

_POLL_S = 1.0
_STOP_S = 300.0
"""How long a run may take to end its step and save."""
_RAY_VARIABLES = ("RAY_ADDRESS", "RAY_JOB_ID", "RAY_RAYLET_PID", "RAY_NODE_ID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A process to run: `python -m hybrid_rl.studies.trial` with these arguments.

    Attributes:
        log: file that takes what it prints.
        cpus: cores it needs, for Ray to count.
    """

    arguments: tuple[str, ...]
    log: Path
    cpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended: exit status, None for one that did not come to its end, and the last line it printed."""

    status: int | None
    last_line: str


class Pool:
    """Runs jobs, as many at a time as the cores and GPUs that Ray counts allow, or as `max_jobs` says."""

    def __init__(self, max_jobs: int | None) -> None:
        self._max_jobs = max_jobs
        self.interrupted = False

    def run(self, jobs: Sequence[Job]) -> list[Ended]:
        """Run the jobs, in order where they wait for each other. After Ctrl-C the rest is left undone."""
        if self.interrupted or not jobs:
            return [Ended(status=None, last_line="") for _ in jobs]
        from ray import tune

        needed = {"cpu": self._cpus(jobs), "gpu": self._gpus()}
        parameters = [
            {"arguments": list(job.arguments), "log": str(job.log), "directory": os.getcwd(), "path": sys.path}
            for job in jobs
        ]
        with tempfile.TemporaryDirectory(prefix="hybrid-rl-tune-") as storage, self._noting_signals():
            tuner = tune.Tuner(
                tune.with_resources(_trainable(), needed),
                param_space={"job": tune.grid_search(parameters)},
                tune_config=tune.TuneConfig(max_concurrent_trials=self._max_jobs, reuse_actors=False),
                run_config=tune.RunConfig(
                    storage_path=storage,
                    verbose=0,
                    stop=_stopper(self),
                    failure_config=tune.FailureConfig(max_failures=0),
                    # Runs keep checkpoints of their own; Tune has nothing to save.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                ),
            )
            tuner.fit()
        return [_ended(job) for job in jobs]

    def _cpus(self, jobs: Sequence[Job]) -> float:
        import ray

        there = ray.cluster_resources().get("CPU", 1.0)
        return there / self._max_jobs if self._max_jobs else min(there, max(job.cpus for job in jobs))

    def _gpus(self) -> float:
        import ray

        there = ray.cluster_resources().get("GPU", 0.0)
        share = there / (self._max_jobs or 1)
        return float(int(share)) if share >= 1 else int(share * 1e4) / 1e4

    @contextmanager
    def _noting_signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM lets the running jobs save, a second one interrupts at once."""

        def on_signal(number: int, frame: object) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            print("the running arms save and stop; once more to stop at once", file=sys.stderr, flush=True)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def open_pool(max_jobs: int | None) -> Iterator[Pool]:
    """Join the Ray cluster that `RAY_ADDRESS` names, or start one on this machine."""
    environment = quiet_environment()
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Pool has its own, which also knows SIGTERM
        "TUNE_FORCE_TRIAL_CLEANUP_S": str(int(_STOP_S) + 60),
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    import ray

    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": environment},
    )
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        yield Pool(max_jobs)
    finally:
        ray.shutdown()


def _status_file(log: str | Path) -> Path:
    return Path(log).with_suffix(".status")


def _ended(job: Job) -> Ended:
    status = _status_file(job.log)
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines() if job.log.is_file() else []
    found = int(status.read_text()) if status.is_file() else None
    return Ended(status=found, last_line=next((line for line in reversed(lines) if line.strip()), ""))


def _stopper(pool: Pool) -> Any:
    from ray import tune

    class OnSignal(tune.Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return pool.interrupted

        def __reduce__(self) -> tuple[type, tuple[()]]:  # Tune stores its settings, which nobody reads back
            return object, ()

    return OnSignal()


def _trainable() -> type[Any]:
    from ray import tune

    class Run(tune.Trainable):
        """A process, watched. Its standard input is a pipe that closes with this one."""

        def setup(self, config: dict[str, Any]) -> None:
            job = config["job"]
            self._log = job["log"]
            Path(self._log).parent.mkdir(parents=True, exist_ok=True)
            _status_file(self._log).unlink(missing_ok=True)
            environment = {k: v for k, v in os.environ.items() if k not in _RAY_VARIABLES}
            environment["PYTHONPATH"] = os.pathsep.join(path or job["directory"] for path in job["path"])
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "hybrid_rl.studies.trial", *job["arguments"]],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=job["directory"],
                    env=environment,
                    start_new_session=True,
                )

        def step(self) -> dict[str, Any]:
            try:
                status = self._process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                return {"done": False}
            _status_file(self._log).write_text(str(status))
            return {"done": True}

        def cleanup(self) -> None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    return Run
