"""The rollout worker: a copy of the policy behind an engine. Every rollout carries the version that produced it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hybrid_rl.errors import EngineMismatch
from hybrid_rl.plugins import build
from hybrid_rl.protocols import RolloutEngine, StreamingEngine
from hybrid_rl.records import AnswerQuery, Generation, Request, Rollout
from hybrid_rl.updates.answers import answer_logprobs
from hybrid_rl.workers.outbox import Judges, Outbox, Sent
from hybrid_rl.workers.setup import WorkerSetup
from hybrid_rl.workers.weights import VersionedWeights, import_weights


@dataclass(frozen=True, slots=True)
class Streamed:
    """Attributes:
    rollouts: one a request, in order.
    sent: those that are being judged; None where the engine hands out nothing early.
    """

    rollouts: list[Rollout]
    sent: list[Sent] | None


class RolloutWorker:
    def __init__(self, setup: WorkerSetup) -> None:
        config = setup.config
        self._policy = setup.load()
        self._max_tokens = config.train.max_tokens_per_micro_batch
        self._version = 0
        self._engine: RolloutEngine = build(config.rollout.engine, config.search, self._policy, **config.rollout.args)

    def ready(self) -> None:
        """Answers once the worker is up; what its constructor raised comes back from here."""

    def load_weights(self, weights: VersionedWeights) -> None:
        import_weights(self._policy.trained_parameters(), weights.arrays)
        self._version = weights.version

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """One rollout a request, in order."""
        generations = self._engine.generate(requests)
        return [self._rollout(request, made) for request, made in zip(requests, generations, strict=True)]

    def generate_judged(self, requests: Sequence[Request], judges: Judges) -> Streamed:
        """The same; what finishes early is sent to be judged, if the engine hands it out."""
        if not isinstance(self._engine, StreamingEngine):
            return Streamed(self.generate(requests), None)
        outbox, found = Outbox(judges, requests), dict[int, Rollout]()
        for place, generation in self._engine.stream(requests):
            found[place] = self._rollout(requests[place], generation)
            outbox.add(place, found[place])
        outbox.send()
        return Streamed([found[place] for place in range(len(requests))], outbox.sent)

    def _rollout(self, request: Request, generation: Generation) -> Rollout:
        forced = self._policy.format.forced_ids(request.mode)
        if generation.ids[: len(forced)] != forced or any(generation.sampled[: len(forced)]):
            raise EngineMismatch(
                f"the rollout engine does not begin responses in mode {request.mode} with the mode's forced_ids, "
                f"marked as not sampled; see hybrid_rl.protocols.RolloutEngine"
            )
        return Rollout(
            request=request,
            generation=generation,
            response=self._policy.format.parse(generation.ids, request.mode),
            versions=(self._version, self._version),
        )

    def answer_logprobs(self, queries: Sequence[AnswerQuery]) -> list[tuple[float, ...]]:
        """See `PolicyHandle.answer_logprobs`, by the weights that it samples with."""
        return answer_logprobs(self._policy, queries, self._max_tokens)

    def initial_answer_logprobs(self, queries: Sequence[AnswerQuery]) -> list[tuple[float, ...]]:
        """As `ReferenceWorker.initial_answer_logprobs`, by the weights under the adapter. Only with `model.lora`."""
        assert self._policy.lora is not None
        with self._policy.lora.off():
            return answer_logprobs(self._policy, queries, max_tokens=0)
