"""The rollout worker: a copy of the policy behind an engine. Every rollout carries the version that produced it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybrid_rl.config import Config
from hybrid_rl.errors import EngineMismatch
from hybrid_rl.machine.kernels import KernelChoice
from hybrid_rl.plugins import build, load
from hybrid_rl.protocols import RolloutEngine, StreamingEngine
from hybrid_rl.records import AnswerQuery, Generation, Request, Rollout
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.updates.answers import answer_logprobs
from hybrid_rl.workers.broadcast import BroadcastMember, Rendezvous, device_identity
from hybrid_rl.workers.outbox import Judges, Outbox, Sent
from hybrid_rl.workers.setup import WorkerSetup
from hybrid_rl.workers.weights import Bucket, WeightReceiver


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
        self._member: BroadcastMember | None = None
        self._figures = RolloutFigures()
        self._receiver = WeightReceiver(self._policy.trained_parameters())
        arguments = engine_arguments(config, setup.kernels())
        self._engine: RolloutEngine = build(config.rollout.engine, config.search, self._policy, **arguments)

    def ready(self) -> None:
        """Answers once the worker is up; what its constructor raised comes back from here."""

    def load_bucket(self, bucket: Bucket) -> None:
        """Take a part of the actor's weights; with the last one the worker answers with the new version."""
        self._receiver.take(bucket)
        if self._receiver.complete:
            self._version = bucket.version

    def load_buckets(self, *buckets: Bucket) -> None:
        """Take all of them."""
        for bucket in buckets:
            self.load_bucket(bucket)

    def device_identity(self) -> str:
        """Which GPU this is; empty for a CPU."""
        return device_identity(self._policy.device)

    def join_broadcast(self, rendezvous: Rendezvous, rank: int) -> None:
        """Become a receiver."""
        self._member = BroadcastMember(rendezvous, rank, self._policy.device)

    def receive_broadcast(self) -> None:
        """Take all weights of the sender, an adapter in float32, others in the dtype they are computed in."""
        assert self._member is not None
        parameters = self._policy.trained_parameters()
        self._member.receive(parameters, next(iter(parameters.values())).dtype)

    def end_broadcast(self, version: int) -> None:
        """What was received is this version."""
        self._version = version

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """One rollout a request, in order."""
        self._check_whole()
        generations = self._engine.generate(requests)
        self._note_figures()
        return [self._rollout(request, made) for request, made in zip(requests, generations, strict=True)]

    def generate_judged(self, requests: Sequence[Request], judges: Judges) -> Streamed:
        """The same; what finishes early is sent to be judged, if the engine hands it out."""
        if not isinstance(self._engine, StreamingEngine):
            return Streamed(self.generate(requests), None)
        self._check_whole()
        outbox, found = Outbox(judges, requests), dict[int, Rollout]()
        for place, generation in self._engine.stream(requests):
            found[place] = self._rollout(requests[place], generation)
            outbox.add(place, found[place])
        self._note_figures()
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

    def _note_figures(self) -> None:
        self._figures = RolloutFigures.total((self._figures, getattr(self._engine, "figures", RolloutFigures())))

    def take_figures(self) -> RolloutFigures:
        """What the engine has done since the last time; nothing where it does not say (`figures`)."""
        found, self._figures = self._figures, RolloutFigures()
        return found

    def _check_whole(self) -> None:
        if not self._receiver.complete:
            raise EngineMismatch("this worker was asked while its weights were being replaced; ask it before or after")

    def answer_logprobs(self, queries: Sequence[AnswerQuery]) -> list[tuple[float, ...]]:
        """See `PolicyHandle.answer_logprobs`, by the weights that it samples with."""
        self._check_whole()
        return answer_logprobs(self._policy, queries, self._max_tokens)

    def initial_answer_logprobs(self, queries: Sequence[AnswerQuery]) -> list[tuple[float, ...]]:
        """As `ReferenceWorker.initial_answer_logprobs`, by the weights under the adapter. Only with `model.lora`."""
        assert self._policy.lora is not None
        with self._policy.lora.off():
            return answer_logprobs(self._policy, queries, max_tokens=0)


def engine_arguments(config: Config, kernels: KernelChoice) -> dict[str, Any]:
    """What the engine is built with: `rollout.args`, and what the machine is good at if the engine asks for it."""
    found = inspect.signature(load(config.rollout.engine, config.search)).parameters
    chosen = {"prepack_linears": kernels.prepack_linears} if "prepack_linears" in found else {}
    return {**chosen, **config.rollout.args}
