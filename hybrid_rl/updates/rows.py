"""Responses behind their prompts, and what a forward pass says of them.

Legend: B = rows, L = longest response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_rl.templates import PromptInputs


@dataclass(frozen=True, slots=True)
class Row:
    """A response behind its prompt. Rows that share a prompt share the `inputs` object.

    Attributes:
        name: which response it is, for messages.
    """

    inputs: PromptInputs
    response: tuple[int, ...]
    temperature: float = 1.0
    name: str = "a row"

    @property
    def length(self) -> int:
        return len(self.inputs.ids) + len(self.response)


@dataclass(frozen=True, slots=True)
class ResponseLogprobs:
    """What a forward pass says of the responses.

    Attributes:
        logprobs_BL: log-probability of each response token, nats; 0 in the padding.
        entropy_BL: entropy of the distribution it was drawn from, nats, detached; 0 in the padding.
        mask_BL: True on response tokens.
    """

    logprobs_BL: Tensor
    entropy_BL: Tensor
    mask_BL: Tensor


def targets_of(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Responses padded with 0 [B, L], and True on their tokens [B, L]."""
    L = max(len(row.response) for row in rows)
    targets_BL = torch.zeros(len(rows), L, dtype=torch.long)
    mask_BL = torch.zeros(len(rows), L, dtype=torch.bool)
    for b, row in enumerate(rows):
        targets_BL[b, : len(row.response)] = torch.tensor(row.response)
        mask_BL[b, : len(row.response)] = True
    return targets_BL, mask_BL


def prompts_of(rows: Sequence[Row]) -> tuple[list[PromptInputs], list[int]]:
    """The distinct prompts of rows, and which of them each row has [B]."""
    prompts = {id(row.inputs): row.inputs for row in rows}
    place = {key: u for u, key in enumerate(prompts)}
    return list(prompts.values()), [place[id(row.inputs)] for row in rows]
