"""The `torch` rollout engine: continuous batching on a transformers model.

A response that ends leaves its slot to the next one at once. The prompt of a group goes through the model once, its
images through the vision tower once a call, whoever else shows them; all responses of the group attend to one memory
of it. A model whose layers remember in other ways decodes with its own cache (`row_decoder.PlainRowDecoder`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.policy import Policy
from hybrid_rl.records import Generation, Request
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.templates import PromptInputs
from rollouts.decoding_run import DecodingRun
from rollouts.prepacked import PackedLinears
from rollouts.responses import Responses
from rollouts.room import DEFAULT_ROWS, Demand, choose_rows, free_bytes
from rollouts.row_decoder import PlainRowDecoder, RowDecoder, SharedRowDecoder
from rollouts.sharing import Sharing
from rollouts.slots import Slots
from rollouts.thinking_budget import Budgets


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call is about: its requests, the inputs of each group, the group of each request, its images."""

    requests: Sequence[Request]
    inputs: list[PromptInputs]
    group_of: list[int]
    vision: VisionMemory

    @classmethod
    def of(cls, policy: Policy, requests: Sequence[Request]) -> _Call:
        first = {request.group: request for request in reversed(requests)}
        number = {group: u for u, group in enumerate(dict.fromkeys(request.group for request in requests))}
        inputs = [policy.format.inputs(first[group].prompt, first[group].mode) for group in number]
        return cls(requests, inputs, [number[request.group] for request in requests], VisionMemory())

    @property
    def prompt_lengths(self) -> list[int]:
        return [len(item.ids) for item in self.inputs]

    @property
    def columns(self) -> int:
        """Most tokens that a response is fed: all of its own but the last."""
        return max(request.max_new_tokens for request in self.requests) - 1


class TorchEngine:
    """See `hybrid_rl.protocols.RolloutEngine`.

    Args:
        policy: the policy to sample from.
        max_rows: most responses in flight together; more are faster, and take more memory. Unset: 512, or as many as
            the free memory holds.
        prepack_linears: decode on a CPU with weights in the layout of its kernels; takes a second copy of them.

    Attributes:
        figures: what the last call has done.
    """

    def __init__(self, policy: Policy, max_rows: int | None = None, prepack_linears: bool = True) -> None:
        if max_rows is not None and max_rows < 1:
            raise ConfigError(f"rollout.args.max_rows is {max_rows}; it must be at least 1")
        self._policy = policy
        self._max_rows = max_rows
        self._budgets = Budgets(policy.format)
        self._sharing = Sharing(policy)
        self._packed = PackedLinears(policy.model) if prepack_linears else None
        self._held = 0
        """Bytes that the largest call has given back: they may not have left this process."""
        self.figures = RolloutFigures()

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One generation a request, in order."""
        found = dict(self._finished(requests))
        return [found[place] for place in range(len(requests))]

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Generation]]:
        """See `hybrid_rl.protocols.StreamingEngine`."""
        return self._finished(requests)

    @torch.inference_mode()  # of a generator: while it works, not while it waits
    def _finished(self, requests: Sequence[Request]) -> Iterator[tuple[int, Generation]]:
        self.figures = RolloutFigures()
        if not requests:
            return
        call = _Call.of(self._policy, requests)
        self._check_lengths(call)
        responses = Responses(self._policy, requests, self._budgets)
        if self._sharing.needs_trial(call.inputs):
            self._sharing.try_out(call.inputs, call.vision, self._kernels)
        rows = self._rows(call)
        slots = Slots(call.group_of, [request.max_new_tokens for request in requests], rows)
        run = DecodingRun(self._decoder(call, rows), slots, responses, call.group_of)
        decoded = 0
        while ended := self._until_some_end(run):
            for row in ended:
                generation = responses.generation(row)
                decoded += len(generation.ids)
                yield row, generation
        self.figures = replace(
            run.figures(),
            decoded_tokens=decoded,
            slots=rows,
            vision_encodes=call.vision.encodes,
            unique_images=call.vision.num_unique,
            notices=self._sharing.take_notices(),
        )

    def _until_some_end(self, run: DecodingRun) -> list[int]:
        with self._kernels():  # not while whoever reads the stream may use the model
            return run.until_some_end()

    def _rows(self, call: _Call) -> int:
        """How many responses are in flight together."""
        if not self._sharing.on:
            return min(self._max_rows or DEFAULT_ROWS, len(call.requests))
        vocabulary = self._policy.model.config.get_text_config().vocab_size
        demand = Demand(self._sharing.shape, call.prompt_lengths, call.columns, vocabulary)
        free = free_bytes(self._policy.device, self._held)
        rows = choose_rows(demand, self._max_rows, len(call.requests), free)
        self._held = max(self._held, demand.num_bytes(rows))
        return rows

    def _decoder(self, call: _Call, rows: int) -> RowDecoder:
        if not self._sharing.on:
            return PlainRowDecoder(self._policy, call.inputs, call.vision)
        return SharedRowDecoder(self._policy, self._sharing.shape, call.inputs, call.vision, rows, call.columns)

    def _kernels(self) -> contextlib.AbstractContextManager[None]:
        return self._packed.applied() if self._packed is not None else contextlib.nullcontext()

    def _check_lengths(self, call: _Call) -> None:
        limit = self._policy.context_length
        for request, group in zip(call.requests, call.group_of, strict=True):
            length = len(call.inputs[group].ids)
            if length + request.max_new_tokens > limit:
                raise DataError(
                    f"prompt {request.prompt.id} has {length} tokens and mode {request.mode} may add "
                    f"{request.max_new_tokens}, more than the context of {limit}; shorten the prompt or lower "
                    f"modes.kinds.{request.mode}.max_new_tokens"
                )
