"""The reference worker: the policy as it was before the first GRPO step. Serves log-probabilities for the KL."""

from __future__ import annotations

from collections.abc import Sequence

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.updates.forward import group_logprobs
from hybrid_rl.workers.setup import WorkerSetup
from hybrid_rl.workers.weights import VersionedWeights, import_weights


class ReferenceWorker:
    def __init__(self, setup: WorkerSetup) -> None:
        self._policy = setup.load()
        self._max_tokens = setup.config.train.max_tokens_per_micro_batch

    def ready(self) -> None:
        """Answers once the worker is up; what its constructor raised comes back from here."""

    def load_weights(self, weights: VersionedWeights) -> None:
        import_weights(self._policy.trained_parameters(), weights.arrays)

    def logprobs(self, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        """Log-probability of each token of each sample of each group, in nats."""
        return group_logprobs(self._policy, groups, self._max_tokens)
