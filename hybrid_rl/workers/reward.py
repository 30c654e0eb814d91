"""The reward worker: scores rollouts in a process of its own, off the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hybrid_rl.config import Config
from hybrid_rl.protocols import PolicyHandle, RewardHost
from hybrid_rl.quiet import quiet_environment
from hybrid_rl.records import Rollout, Score
from hybrid_rl.scoring import Scorer


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
