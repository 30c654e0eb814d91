"""The reference worker: the policy as it was before the first GRPO step. Serves log-probabilities for the KL."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.updates.forward import Row, micro_batches, response_logprobs
from hybrid_rl.workers.setup import WorkerSetup
from hybrid_rl.workers.weights import VersionedWeights, import_weights


class ReferenceWorker:
    def __init__(self, setup: WorkerSetup) -> None:
        self._policy = setup.load()
        self._max_tokens = setup.config.train.max_tokens_per_micro_batch

    def ready(self) -> None:
        """Answers once the worker is up; what its constructor raised comes back from here."""

    def load_weights(self, weights: VersionedWeights) -> None:
        import_weights(self._policy.model, weights.arrays)

    @torch.inference_mode()
    def logprobs(self, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        """Log-probability of each token of each sample of each group, in nats."""
        rows = []
        for group in groups:
            request = group.samples[0].rollout.request
            inputs = self._policy.format.inputs(request.prompt, request.mode)
            rows += [Row(inputs, s.rollout.generation.ids, request.temperature) for s in group.samples]
        found: list[tuple[float, ...]] = [()] * len(rows)
        for batch in micro_batches(rows, self._max_tokens):
            logprobs_BL = response_logprobs(self._policy, [rows[i] for i in batch]).logprobs_BL.tolist()
            for index, values in zip(batch, logprobs_BL, strict=True):
                found[index] = tuple(values[: len(rows[index].response)])
        iterator = iter(found)
        return [[next(iterator) for _ in group.samples] for group in groups]
