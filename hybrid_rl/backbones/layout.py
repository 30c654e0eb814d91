"""Rows [padding | prompt | response | padding] in a batch, and responses on their way.

Prompts end, and responses begin, in the same column, so that the logits of all responses are the last columns of a
forward pass. Columns are gathered from a strip [blank | prompt 0 | prompt 1 ... | response 0 | response 1 ...] of
whatever there is one of for each token: ids, embeddings, positions.

Legend: B = rows, P = longest prompt, L = longest response, T = P + L, N = length of the strip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Attributes, all on the CPU:
    index_BT: the place in the strip that a column is taken from; 0 is the blank, which fills the padding.
    attention_BT: 1 on tokens, 0 in the padding.
    mask_BL: True on response tokens.
    """

    index_BT: Tensor
    attention_BT: Tensor
    mask_BL: Tensor

    @classmethod
    def of(cls, prompt_lengths: Sequence[int], prompt_of_row: Sequence[int], response_lengths: Sequence[int]) -> Layout:
        """Lay out rows; several may have the same prompt."""
        starts, position = [], 1
        for length in prompt_lengths:
            starts.append(position)
            position += length
        P = max(prompt_lengths[u] for u in prompt_of_row)
        L = max(response_lengths)
        index_BT = torch.zeros(len(prompt_of_row), P + L, dtype=torch.long)
        for b, (u, n) in enumerate(zip(prompt_of_row, response_lengths, strict=True)):
            p = prompt_lengths[u]
            index_BT[b, P - p : P] = torch.arange(starts[u], starts[u] + p)
            index_BT[b, P : P + n] = torch.arange(position, position + n)
            position += n
        attention_BT = (index_BT > 0).long()
        return cls(index_BT, attention_BT, attention_BT[:, P:].bool())

    @property
    def positions_BT(self) -> Tensor:
        """Position of each token in its row, from 0."""
        return (self.attention_BT.cumsum(-1) - 1).clamp(min=0)


@dataclass(slots=True)
class Decoding:
    """Responses on their way: one row each.

    Attributes:
        cache: what the model remembers of each row; keys and values, and the states of linear-attention layers.
        attention_BT: 1 on the tokens so far, 0 in the padding.
        offset_B: what a row's positions are ahead of its tokens, where images take fewer positions than tokens.
    """

    cache: Any
    attention_BT: Tensor
    offset_B: Tensor

    def select(self, rows_B: Tensor) -> None:
        """Go on with these rows; a row that is named twice goes on twice, each with a memory of its own.

        `reorder_cache` and not `batch_select_indices`, which leaves linear-attention states as they are.
        """
        self.cache.reorder_cache(rows_B)
        self.attention_BT, self.offset_B = self.attention_BT[rows_B], self.offset_B[rows_B]

    def add_column(self) -> Tensor:
        """Make room for one token a row; returns its positions [B, 1]."""
        attention_BT = self.attention_BT
        self.attention_BT = torch.cat([attention_BT, attention_BT.new_ones(len(attention_BT), 1)], dim=1)
        return self.attention_BT.sum(1, keepdim=True) - 1 + self.offset_B[:, None]
