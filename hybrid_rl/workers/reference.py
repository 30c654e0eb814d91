"""The reference worker: the policy as it was before the first GRPO step. Serves log-probabilities to KL and rewards."""

from __future__ import annotations

from collections.abc import Sequence

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.records import AnswerQuery
from hybrid_rl.updates.answers import answer_logprobs
from hybrid_rl.updates.forward import group_logprobs
from hybrid_rl.updates.forward_figures import ForwardFigures
from hybrid_rl.workers.setup import WorkerSetup
from hybrid_rl.workers.weights import Bucket, WeightReceiver


class ReferenceWorker:
    def __init__(self, setup: WorkerSetup) -> None:
        self._policy = setup.load()
        self._kernels = setup.kernels()
        self._figures = ForwardFigures()
        self._receiver = WeightReceiver(self._policy.trained_parameters())
        self._max_tokens = setup.config.train.max_tokens_per_micro_batch

    def ready(self) -> None:
        """Answers once the worker is up; what its constructor raised comes back from here."""

    def load_bucket(self, bucket: Bucket) -> None:
        """Take a part of the actor's weights."""
        self._receiver.take(bucket)

    def logprobs(self, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        """Log-probability of each token of each sample of each group, in nats."""
        with self._kernels.matmul():
            return group_logprobs(self._policy, groups, self._max_tokens, self._figures)

    def take_figures(self) -> ForwardFigures:
        """What went through the model since the last time."""
        found, self._figures = self._figures, ForwardFigures()
        return found

    def initial_answer_logprobs(self, queries: Sequence[AnswerQuery]) -> list[tuple[float, ...]]:
        """See `PolicyHandle.answer_logprobs`.

        Each query is forwarded alone: rewards keep what they are told, and a resumed run, which asks for the same
        answers in other company, must be told the same to the last bit.
        """
        return answer_logprobs(self._policy, queries, max_tokens=0)
