"""The `torch` rollout engine: continuous batching on a transformers model.

A response that ends leaves its slot to the next one at once. The prompt of a group goes through the model once, its
images through the vision tower once a call, whoever else shows them; all responses of the group attend to one memory
of it. A model whose layers remember in other ways decodes with its own cache (`flight.PlainFlight`).

Legend: B = responses in flight.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.policy import Policy
from hybrid_rl.records import Generation, Request
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.templates import PromptInputs
from rollouts.flight import Flight, PlainFlight, SharedFlight
from rollouts.prepacked import PackedLinears
from rollouts.responses import Responses
from rollouts.room import DEFAULT_ROWS, Demand, choose_rows, free_bytes
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
        self.figures = RolloutFigures()

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        if not requests:
            self.figures = RolloutFigures()
            return []
        call = _Call.of(self._policy, requests)
        self._check_lengths(call)
        responses = Responses(self._policy, requests, self._budgets)
        if self._sharing.needs_trial(call.inputs):
            self._sharing.try_out(call.inputs, call.vision, self._kernels)
        rows = self._rows(call)
        slots = Slots(call.group_of, [request.max_new_tokens for request in requests], rows)
        with self._kernels():
            figures = self._run(self._flight(call, rows), slots, responses, call.group_of)
        generations = responses.generations()
        self.figures = replace(
            figures,
            decoded_tokens=sum(len(generation.ids) for generation in generations),
            slots=rows,
            vision_encodes=call.vision.encodes,
            unique_images=call.vision.num_unique,
        )
        return generations

    def _run(self, flight: Flight, slots: Slots, responses: Responses, group_of: Sequence[int]) -> RolloutFigures:
        """Decode all responses to their ends."""
        start, prefill_s = self._now(), 0.0
        steps = row_steps = 0
        tokens_B = torch.empty(0, dtype=torch.long, device=self._policy.device)
        while True:
            logits = []
            if slots.rows:
                logits.append(flight.decode(tokens_B))
                steps, row_steps = steps + 1, row_steps + len(slots.rows)
            if new := slots.fill() if flight.joins or not slots.rows else []:
                began = self._now()
                logits.append(flight.admit([group_of[row] for row in new]))
                prefill_s += self._now() - began
                responses.watch(slots.rows)
            if not logits:
                break
            tokens_B, ended_B = responses.step(torch.cat(logits) if len(logits) > 1 else logits[0])
            if bool(ended_B.any()):
                keep_B = torch.nonzero(~ended_B)[:, 0]
                keep = keep_B.tolist()
                flight.keep(keep, slots.keep(keep))
                responses.watch(slots.rows)
                tokens_B = tokens_B[keep_B]
        return RolloutFigures(
            prefill_tokens=flight.prefill_tokens,
            decode_steps=steps,
            row_steps=row_steps,
            padded_tokens=flight.padded_tokens,
            prefill_seconds=prefill_s,
            decode_seconds=self._now() - start - prefill_s,
        )

    def _rows(self, call: _Call) -> int:
        """How many responses are in flight together."""
        if not self._sharing.on:
            return min(self._max_rows or DEFAULT_ROWS, len(call.requests))
        vocabulary = self._policy.model.config.get_text_config().vocab_size
        demand = Demand(self._sharing.shape, call.prompt_lengths, call.columns, vocabulary)
        free = free_bytes(self._policy.device)
        # What the last call gave back may not have left this process.
        rows = choose_rows(demand, self._max_rows, len(call.requests), free and free + self._held)
        self._held = max(self._held, demand.num_bytes(rows))
        return rows

    def _flight(self, call: _Call, rows: int) -> Flight:
        if not self._sharing.on:
            return PlainFlight(self._policy, call.inputs, call.vision)
        return SharedFlight(self._policy, self._sharing.shape, call.inputs, call.vision, rows, call.columns)

    def _kernels(self) -> contextlib.AbstractContextManager[None]:
        return self._packed.applied() if self._packed is not None else contextlib.nullcontext()

    def _now(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self._policy.device.type == "cuda":
            torch.cuda.synchronize(self._policy.device)
        return time.perf_counter()

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
