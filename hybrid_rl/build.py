"""Config -> a wired run: material checked, workers started, folder made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hybrid_rl.ahead import Ahead, resampled, stored_figures, stored_rollouts
from hybrid_rl.algorithm.admission import AdmissionState
from hybrid_rl.algorithm.assignment import mode_schedule
from hybrid_rl.algorithm.grouping import Grouping, make_grouping
from hybrid_rl.config import Config
from hybrid_rl.dealing import Dealer
from hybrid_rl.errors import RunFolderError
from hybrid_rl.insight.live import View, make_view
from hybrid_rl.insight.plan import describe_plan
from hybrid_rl.interrupt import StopSignal
from hybrid_rl.machine.kernels import KernelChoice
from hybrid_rl.machine.sentences import describe_kernels
from hybrid_rl.machine.yardstick import Yardstick
from hybrid_rl.preflight import Material, prepare
from hybrid_rl.protocols import ModeSchedule
from hybrid_rl.run_folder import Checkpoint, RunFolder
from hybrid_rl.scorer_pool.nursery import end_shared_nursery
from hybrid_rl.scoring import actor_specs, place_rewards
from hybrid_rl.scoring.stages import stages_of
from hybrid_rl.stages.cache import cache_folder
from hybrid_rl.workers.actor import ActorWorker
from hybrid_rl.workers.cluster import Cluster, LocalCluster
from hybrid_rl.workers.pool import Actor, AdapterOff, Reference, RewardPool, RolloutPool, SeparateReference
from hybrid_rl.workers.reference import ReferenceWorker
from hybrid_rl.workers.reward import RewardWorker
from hybrid_rl.workers.reward_actor import start_hosts
from hybrid_rl.workers.rollout import RolloutWorker
from hybrid_rl.workers.served_policy import ServedPolicy
from hybrid_rl.workers.setup import WorkerSetup, measured_first


@dataclass(slots=True, kw_only=True)
class Run:
    """A run under way. `warm_up_needed`, `done`, `admission` and `wall_s` change; the rest is fixed.

    Attributes:
        yardstick: what updates cost, and what their machine can do.
        warm_up_needed: the supervised stage has not been finished, here or in the cache.
        done: training steps that are done and recorded.
        admission: what admission remembers of these steps.
        wall_s: seconds by stage, over all sessions of the run; those of training steps are in metrics.jsonl.
    """

    config: Config
    folder: RunFolder
    material: Material
    modes: ModeSchedule
    dealer: Dealer
    grouping: Grouping
    actor: Actor
    rollouts: RolloutPool
    rewards: RewardPool
    ahead: Ahead
    reference: Reference
    view: View
    stop: StopSignal
    yardstick: Yardstick
    warm_up_needed: bool
    done: int = 0
    admission: AdmissionState = field(default_factory=AdmissionState)
    wall_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to `wall_s[stage]`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.wall_s[stage] = self.wall_s.get(stage, 0.0) + time.monotonic() - start


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """Where the weights of the first step come from.

    Attributes:
        actor, others: folder that the actor and the other workers load; None for the config's model.
        reference: folder of the reference.
        warm_up_needed: see `Run`.
        done: training steps done.
        checkpoint: that an interrupted run goes on from.
        admission: see `Run`.
        sentence: the same for people.
        kernels: that the run has used so far.
    """

    actor: str | None
    others: str | None
    reference: str | None
    warm_up_needed: bool
    done: int
    sentence: str
    checkpoint: Path | None = None
    admission: AdmissionState = field(default_factory=AdmissionState)
    kernels: KernelChoice | None = None


@contextmanager
def open_run(config: Config, resume: RunFolder | None = None) -> Iterator[Run]:
    """Check everything, start the workers, make or reopen the folder; close it all at the end.

    Raises:
        UserError: before any process or folder exists.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        if resume is not None:
            stack.enter_context(resume.held())
        config, folder, material, start = _check(config, resume)
        if config.cluster.executor == "ray":
            end_shared_nursery()  # it has read references; the run's scorers belong to its reward workers
        stop = stack.enter_context(StopSignal())
        view = stack.enter_context(make_view(config.run.live))
        for topic, sentence in describe_plan(config, material, str(folder.path), start.sentence):
            view.note(f"{topic:<12} {sentence}")
        view.phase("starting workers")
        cluster = _open_cluster(config, stop)
        stack.callback(cluster.close)
        actor, rollouts, rewards, reference = _start_workers(config, cluster, material, start)
        # Workers answer once they are up; what cannot be loaded or built is found before there is a folder.
        for workers in (actor, rollouts, reference, rewards):
            workers.ready()
        if rollouts.join(actor, config.cluster.broadcast_timeout_s):
            view.note("weights      from GPU to GPU by broadcast")
        yardstick = actor.yardstick()
        for topic, sentence in describe_kernels(yardstick.kernels):
            view.note(f"{topic:<12} {sentence}")
        if resume is None:
            folder.create(config)
            stack.enter_context(folder.held())
        else:
            folder.forget_after(start.done)
        modes = mode_schedule(config)
        dealer = Dealer(config, material.prompts, modes)
        run = Run(
            config=config,
            folder=folder,
            material=material,
            modes=modes,
            dealer=dealer,
            grouping=make_grouping(config, {mode: material.format.thought(mode) for mode in config.modes.kinds}),
            actor=actor,
            rollouts=rollouts,
            rewards=rewards,
            ahead=_ahead(config, dealer, rollouts, rewards, material, start, view),
            reference=reference,
            view=view,
            stop=stop,
            yardstick=yardstick,
            warm_up_needed=start.warm_up_needed,
            done=start.done,
            admission=start.admission,
            wall_s=dict(folder.summary().get("stages_wall_s", {})),
        )
        run.wall_s["start"] = run.wall_s.get("start", 0.0) + time.monotonic() - began
        yield run


def plan_run(config: Config, resume: RunFolder | None = None) -> list[tuple[str, str]]:
    """What `open_run` would do, as (topic, sentence) pairs. Starts nothing, writes nothing and loads no weights.

    Raises:
        UserError: as `open_run` does before it starts a process.
    """
    config, folder, material, start = _check(config, resume)
    return describe_plan(config, material, str(folder.path), start.sentence)


def _check(config: Config, resume: RunFolder | None) -> tuple[Config, RunFolder, Material, _Start]:
    """Everything that can be known before a process or a folder exists."""
    checkpoint = resume.last_checkpoint() if resume is not None else None
    if resume is None:
        config = with_run_dir(config)
    folder = resume or RunFolder(Path(config.run.dir or ""))
    if checkpoint is not None and folder.summary().get("status") == "completed":
        raise RunFolderError(f"run {folder.path} is complete; look at {folder.path / 'report.html'}")
    material = prepare(config, str(checkpoint.path) if checkpoint else None)
    return config, folder, material, _start(config, folder, checkpoint)


def with_run_dir(config: Config) -> Config:
    """The config with its run folder decided, so that the caller knows where the run will be."""
    run = config.run.model_copy(update={"dir": str(RunFolder.planned(config).path)})
    return config.model_copy(update={"run": run})


def _start(config: Config, folder: RunFolder, checkpoint: Checkpoint | None) -> _Start:
    warm_up = config.warmup is not None and config.model.path is None
    kept = folder.path / "reference"
    if checkpoint is not None:
        in_warm_up = checkpoint.stage == "warmup"
        path = str(checkpoint.path.absolute())
        return _Start(
            actor=path,
            others=path,
            reference=str(kept.absolute()) if kept.is_dir() else None,
            warm_up_needed=in_warm_up,
            done=0 if in_warm_up else checkpoint.step,
            admission=AdmissionState.from_json(checkpoint.admission) if checkpoint.admission else AdmissionState(),
            kernels=KernelChoice.recorded(folder.summary().get("machine")),
            sentence=f"goes on from {path}",
            checkpoint=checkpoint.path,
        )
    cached = cache_folder(config) if warm_up and config.warmup is not None and config.warmup.cache else None
    if cached is not None and (cached / "config.json").is_file():
        found = str(cached)
        sentence = f"{config.model.builder}, warmed up earlier ({_short(cached)})"
        return _Start(actor=found, others=found, reference=found, warm_up_needed=False, done=0, sentence=sentence)
    if config.model.path is not None:
        sentence = f"{config.model.path}, no warm-up"
    elif warm_up and config.warmup is not None:
        sentence = f"{config.model.builder} with random weights; warm-up of {config.warmup.steps} supervised steps"
    else:
        sentence = f"{config.model.builder} with random weights, no warm-up"
    return _Start(actor=None, others=None, reference=None, warm_up_needed=warm_up, done=0, sentence=sentence)


def _open_cluster(config: Config, stop: StopSignal) -> Cluster:
    if config.cluster.executor == "local":
        return LocalCluster(stop)
    from hybrid_rl.workers.ray_cluster import RayCluster

    models = 1 + config.cluster.rollout_workers + (config.model.lora is None)  # with an adapter, no reference
    models += len(actor_specs(config))
    return RayCluster(config.cluster, stop, num_gpu_workers=models)


def _start_workers(
    config: Config, cluster: Cluster, material: Material, start: _Start
) -> tuple[Actor, RolloutPool, RewardPool, Reference]:
    measured = measured_first(config, start.kernels)
    others = WorkerSetup(config=config, checkpoint=start.others, measured=measured)
    actor = Actor(cluster.start(ActorWorker, replace(others, checkpoint=start.actor)))
    rollouts = [cluster.start(RolloutWorker, others) for _ in range(config.cluster.rollout_workers)]
    reference: Reference = AdapterOff(actor)
    initial = None
    if config.model.lora is None:
        initial = cluster.start(ReferenceWorker, replace(others, checkpoint=start.reference))
        reference = SeparateReference(initial)
    policy = ServedPolicy(others, rollouts, initial)
    hosts = start_hosts(cluster, config, actor_specs(config))
    rewards = [
        cluster.start(RewardWorker, config, material.wants_thought, policy, hosts, gpu=False)
        for _ in range(config.cluster.reward_workers)
    ]
    stages = stages_of(place_rewards(config.rewards, config.search))
    beside = [host.handle for host in hosts.values()]
    pool = RolloutPool(cluster, rollouts, ahead=config.train.async_steps > 0)
    return actor, pool, RewardPool(rewards, config.rewards, stages, beside), reference


def _ahead(
    config: Config,
    dealer: Dealer,
    rollouts: RolloutPool,
    rewards: RewardPool,
    material: Material,
    start: _Start,
    view: View,
) -> Ahead:
    """The rollouts of coming steps, with those that an interrupted run had asked for."""
    stored = stored_rollouts(start.checkpoint, dealer, material.format) if start.checkpoint else {}
    steps, last = config.train.async_steps, config.run.steps
    sentence = resampled(stored, done=start.done, steps=steps, last=last)
    if sentence is not None:
        view.note(f"{'warning':<12} {sentence}")
    figures = stored_figures(start.checkpoint) if start.checkpoint else {}
    return Ahead(dealer, rollouts, rewards, steps=steps, last=last, stored=stored, figures=figures)


def _short(path: Path) -> str:
    home = str(Path.home())
    return str(path).replace(home, "~", 1) if str(path).startswith(home) else str(path)
