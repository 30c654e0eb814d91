"""The reward worker: scores rollouts in a process of its own, off the driver."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hybrid_rl.config import Config
from hybrid_rl.protocols import PolicyHandle, RewardHost
from hybrid_rl.quiet import quiet_environment
from hybrid_rl.records import Rollout, Score
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring import Scorer
from hybrid_rl.scoring.stages import Stage


@dataclass(frozen=True, slots=True)
class Judged:
    """Attributes:
    verdicts: for each rollout, by part.
    seconds: that it took.
    """

    verdicts: list[dict[str, Verdict]]
    seconds: float


class RewardWorker:
    """Args:
    policy: for rewards that ask for it.
    hosts: workers of the rewards that run as actors.
    """

    def __init__(
        self,
        config: Config,
        wants_thought: Mapping[str, bool],
        policy: PolicyHandle | None = None,
        hosts: Mapping[str, RewardHost] | None = None,
    ) -> None:
        quiet_environment()
        self._scorer = Scorer(
            config.rewards,
            config.search,
            wants_thought,
            processes=config.cluster.scorer_processes,
            quarantine=Path(config.run.dir, "quarantine.jsonl") if config.run.dir else None,
            policy=policy,
            hosts=hosts,
        )
        self._scorer.begin()

    def ready(self) -> None:
        """Answers once the worker is up; what its constructor raised comes back from here."""

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return self._scorer.score_all(rollouts)

    def judge(self, rollouts: Sequence[Rollout], stages: frozenset[Stage]) -> Judged:
        """What the rewards of some stages say of rollouts, to be summed up with what the others say."""
        began = time.monotonic()
        found = self._scorer.judge(rollouts, stages)
        # An exception may be one that other processes cannot rebuild; its sentence travels.
        bare = [{name: replace(verdict, cause=None) for name, verdict in of_one.items()} for of_one in found]
        return Judged(bare, time.monotonic() - began)
