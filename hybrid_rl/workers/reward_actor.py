"""A reward in a worker of its own: a model beside the policy, on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hybrid_rl.config import Config
from hybrid_rl.scorer_pool.loading import RewardSpec, load_reward
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring.calls import Call, call_here
from hybrid_rl.workers.cluster import Cluster, Handle
from hybrid_rl.workers.setup import WorkerSetup


class RewardActor:
    """Builds the reward and makes the calls that it is sent, one after the other.

    A method `warm_up()` of the reward is called first: what it loads is found wanting before the run begins.
    """

    def __init__(self, config: Config, spec: RewardSpec) -> None:
        WorkerSetup(config=config, checkpoint=None).prepare()
        self._reward = load_reward(spec)
        warm_up = getattr(self._reward.function, "warm_up", None)
        if warm_up is not None:
            warm_up()

    def ready(self) -> None:
        """Answers once the worker is up; what its constructor raised comes back from here."""

    def score(self, calls: Sequence[Call]) -> list[list[Verdict]]:
        """The verdicts on the responses of each call."""
        # An exception may be one that other processes cannot rebuild; its sentence travels.
        return [[replace(verdict, cause=None) for verdict in call_here(self._reward, call)] for call in calls]


@dataclass(frozen=True, slots=True)
class RewardActorHost:
    """See `hybrid_rl.protocols.RewardHost`."""

    handle: Handle

    def begin(self, calls: Sequence[Call]) -> Callable[[], list[list[Verdict]]]:
        pending = self.handle.call("score", list(calls))
        return lambda: list(pending.result())


def start_hosts(cluster: Cluster, config: Config, specs: dict[str, RewardSpec]) -> dict[str, RewardActorHost]:
    """Start a worker for each reward that runs as an actor, by the key of `place_rewards`."""
    return {key: RewardActorHost(cluster.start(RewardActor, config, spec)) for key, spec in specs.items()}
