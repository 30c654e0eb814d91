"""An ablation from beginning to end: check, warm up once a seed, run what is missing, write the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from rich.console import Console

from hybrid_rl.config import Config, dump_config
from hybrid_rl.errors import ConfigError, Interrupted, UserError, WorkerDied
from hybrid_rl.preflight import Material, prepare
from hybrid_rl.stages.cache import cache_folder
from hybrid_rl.studies import folder
from hybrid_rl.studies.design import Design, Trial
from hybrid_rl.studies.output import write_results
from hybrid_rl.studies.progress import TrialProgress
from hybrid_rl.studies.resources import is_small, settle
from hybrid_rl.studies.results import is_finished
from hybrid_rl.studies.trial import EXIT_INTERRUPTED, EXIT_USER_ERROR
from hybrid_rl.studies.tuning import Ended, Job
from hybrid_rl.workers.setup import usable_cores


class RunsJobs(Protocol):
    interrupted: bool

    def run(self, jobs: Sequence[Job]) -> list[Ended]: ...


OpensPool = Callable[[int | None], AbstractContextManager[RunsJobs]]


def ablate(design: Design, open_pool: OpensPool, max_jobs: int | None, console: Console) -> None:
    """Run what is not finished yet and write the tables into the folder of the ablation.

    Args:
        max_jobs: runs at a time; None: as many as cores and GPUs allow.

    Raises:
        UserError: an arm that cannot run, or a folder of another ablation; before anything has started, if possible.
        Interrupted: the user asked to stop; the same call goes on.
    """
    folder.check(design)
    trials = list(design.trials())
    missing = [trial for trial in trials if not is_finished(trial)]
    small = is_small(_check_arms(missing))
    console.print(
        f"ablation     {len(design.arms)} arms, {len(design.seeds)} seeds: {len(missing)} of {len(trials)} runs to do "
        f"in {design.folder}",
        markup=False,
    )
    with folder.opened(design):
        try:
            if missing:
                with open_pool(max_jobs) as pool:
                    cores = usable_cores()
                    settled = [
                        replace(trial, config=settle(trial.config, max_jobs, small=small, cores=cores))
                        for trial in missing
                    ]
                    _run(design, trials, settled, pool, console)
        finally:
            write_results(design, trials)


def _check_arms(trials: Sequence[Trial]) -> list[Material]:
    """Everything that a run checks before its first step, for one seed of each arm; what each will train."""
    found = []
    for trial in {trial.arm.name: trial for trial in reversed(trials)}.values():
        try:
            found.append(prepare(trial.config))
        except UserError as error:
            raise type(error)(f"arm {trial.arm.name}: {error}") from error
    return found


def _run(
    design: Design,
    trials: Sequence[Trial],
    missing: Sequence[Trial],
    pool: RunsJobs,
    console: Console,
) -> None:
    warm_ups = list(_warm_ups(design, missing))
    if warm_ups:
        console.print(f"warm-up      {len(warm_ups)} to make, one a seed", markup=False)
        _raise_for(pool, [(job.log.stem, ended) for job, ended in zip(warm_ups, pool.run(warm_ups), strict=True)])
    jobs = [_job(trial.config, _beside(trial, ".yaml"), _beside(trial, ".log")) for trial in missing]
    with TrialProgress(trials, console, on_finished=lambda: write_results(design, trials)):
        ended = pool.run(jobs)
    names = [f"arm {trial.arm.name}, seed {trial.seed}" for trial in missing]
    _raise_for(pool, list(zip(names, ended, strict=True)))


def _warm_ups(design: Design, missing: Sequence[Trial]) -> Iterator[Job]:
    """One job for each warm-up that is not in the cache: arms that do not change it share it."""
    made: set[Path] = set()
    for trial in missing:
        if trial.config.warmup is None or trial.config.model.path is not None:
            continue
        cached = cache_folder(trial.config)
        if cached in made or (cached / "config.json").is_file() or _has_begun(trial):
            continue
        made.add(cached)
        place = design.folder / "warmups" / f"seed_{trial.seed}_{cached.name[:8]}"
        config = _with_run_dir(trial.config, place)
        yield _job(config, place.with_suffix(".yaml"), place.with_suffix(".log"), "--warm-up-only")


def _has_begun(trial: Trial) -> bool:
    """It goes on from a checkpoint and needs no warm-up from the cache."""
    return any((trial.folder / "checkpoints").glob("step_*/state.json"))


def _job(config: Config, path: Path, log: Path, *options: str) -> Job:
    folder.write_config(path, dump_config(config))
    return Job(arguments=(str(path), *options), log=log, cpus=config.cluster.threads_per_worker or 1)


def _beside(trial: Trial, suffix: str) -> Path:
    """A file beside the run's folder, which has to be made by the run itself."""
    return trial.folder.with_name(trial.folder.name + suffix)


def _with_run_dir(config: Config, place: Path) -> Config:
    return config.model_copy(update={"run": config.run.model_copy(update={"dir": str(place)})})


def _raise_for(pool: RunsJobs, ended: Sequence[tuple[str, Ended]]) -> None:
    """Say what kept jobs from their end; what the user can mend comes first."""
    if pool.interrupted or any(end.status == EXIT_INTERRUPTED for _, end in ended):
        raise Interrupted("stopped; run the same command again to go on, finished arms are kept")
    failed = [(name, end) for name, end in ended if end.status != 0]
    for name, end in failed:
        if end.status == EXIT_USER_ERROR:
            raise ConfigError(f"{name}: {end.last_line.removeprefix('hybrid-rl: ')}")
    for name, end in failed:
        how = "was killed" if end.status is None or end.status < 0 else f"failed: {end.last_line}"
        raise WorkerDied(f"{name} {how} ({len(failed)} in all); the same command goes on with what is missing")
