"""What an engine decodes with: the memory of the responses in flight, and the passes that extend it.

Legend: B = rows in flight, U = prompts, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hybrid_rl.backbones.head_shape import HeadShape
from hybrid_rl.backbones.layout import Decoding
from hybrid_rl.backbones.shared_decoding import SharedDecoding
from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.policy import Policy
from hybrid_rl.protocols import PlannedBackbone
from hybrid_rl.templates import PromptInputs

_PREFILL_TOKENS = 8192
"""Prompts go through the model together up to so many tokens: enough to keep it busy, and a bound for memory."""


class RowDecoder(Protocol):
    """Rows are named by their places, prompts by their places in the call.

    Attributes:
        joins: rows may come while others are on their way.
        prefill_tokens: tokens of prompts that went through the model.
        padded_tokens: positions without a token that did.
    """

    joins: bool
    prefill_tokens: int
    padded_tokens: int

    def admit(self, prompts: Sequence[int]) -> Tensor:
        """A row comes for each of these prompts, below the others: the logits of their first tokens [B, V]."""
        ...

    def keep(self, rows: Sequence[int], done: Sequence[int]) -> None:
        """Only these rows go on, in their order; no row will come for the prompts that are done."""
        ...

    def decode(self, tokens_B: Tensor) -> Tensor:
        """Feed each row its next token: the logits of the one behind it [B, V]."""
        ...


class SharedRowDecoder:
    """Each prompt is remembered once, for all its rows."""

    joins = True
    padded_tokens = 0

    def __init__(
        self,
        policy: Policy,
        shape: HeadShape,
        inputs: Sequence[PromptInputs],
        vision: VisionMemory,
        rows: int,
        columns: int,
    ) -> None:
        assert isinstance(policy.backbone, PlannedBackbone)
        self._policy, self._backbone, self._inputs, self._vision = policy, policy.backbone, inputs, vision
        self._decoding = SharedDecoding(shape, [len(item.ids) for item in inputs], rows, columns)
        self._first: dict[int, tuple[Tensor, int]] = {}
        self.prefill_tokens = 0

    def admit(self, prompts: Sequence[int]) -> Tensor:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._first]
        for some in _portions(new, [len(self._inputs[prompt].ids) for prompt in new]):
            inputs = [self._inputs[prompt] for prompt in some]
            with self._policy.autocast():
                logits_UV, positions = self._backbone.prefill_planned(
                    self._policy.model, inputs, self._decoding.prefill(some), self._vision
                )
            self.prefill_tokens += sum(len(item.ids) for item in inputs)
            self._first |= zip(some, zip(logits_UV, positions, strict=True), strict=True)
        self._decoding.join(prompts, [self._first[prompt][1] for prompt in prompts])
        return torch.stack([self._first[prompt][0] for prompt in prompts])

    def keep(self, rows: Sequence[int], done: Sequence[int]) -> None:
        self._decoding.keep(rows, done)
        for prompt in done:
            del self._first[prompt]

    def decode(self, tokens_B: Tensor) -> Tensor:
        with self._policy.autocast():
            return self._backbone.decode_planned(self._policy.model, tokens_B, self._decoding.advance(), self._decoding)


class PlainRowDecoder:
    """Each row remembers its whole prompt in the model's own cache, whatever that is. Rows come together."""

    joins = False

    def __init__(self, policy: Policy, inputs: Sequence[PromptInputs], vision: VisionMemory) -> None:
        self._policy, self._inputs, self._vision = policy, inputs, vision
        self._decoding: Decoding | None = None
        self.prefill_tokens = self.padded_tokens = 0

    def admit(self, prompts: Sequence[int]) -> Tensor:
        place = {prompt: u for u, prompt in enumerate(dict.fromkeys(prompts))}
        inputs = [self._inputs[prompt] for prompt in place]
        logits_UV, self._decoding = self._policy.prefill(inputs, self._vision)
        lengths = [len(item.ids) for item in inputs]
        self.prefill_tokens += sum(lengths)
        self.padded_tokens += len(lengths) * max(lengths) - sum(lengths)
        rows_B = torch.tensor([place[prompt] for prompt in prompts], device=self._policy.device)
        self._decoding.select(rows_B)
        return logits_UV[rows_B]

    def keep(self, rows: Sequence[int], done: Sequence[int]) -> None:
        assert self._decoding is not None
        if rows:
            self._decoding.select(torch.tensor(rows, device=self._policy.device))

    def decode(self, tokens_B: Tensor) -> Tensor:
        assert self._decoding is not None
        return self._policy.decode(tokens_B, self._decoding)


def _portions(prompts: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Prompts in runs of at most `_PREFILL_TOKENS`; a longer one stands alone. Those of one length are neighbours."""
    some: list[int] = []
    total = 0
    for length, prompt in sorted(zip(lengths, prompts, strict=True)):
        if some and total + length > _PREFILL_TOKENS:
            yield some
            some, total = [], 0
        some.append(prompt)
        total += length
    if some:
        yield some
