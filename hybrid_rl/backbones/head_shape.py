"""What a decoder's layers keep of a token, and which memories may be read in one call.

Legend: B = rows, K = key/value heads, S = columns, D = head size, T = queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_LEAST_SHARE = 0.75
"""Memories of which the shortest has this share of the longest are read together: so much is not read in vain."""
_SLACK = 32
"""So many columns in vain cost less than a further call."""


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Keys and values of a token: in each of `num_layers`, `num_heads` of each with `size` numbers."""

    num_layers: int
    num_heads: int
    size: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, config: Any, dtype: torch.dtype, device: torch.device) -> HeadShape:
        """Of a decoder with this transformers config."""
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        return cls(config.num_hidden_layers, heads, size, dtype, device)

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.num_layers * self.num_heads * self.size * self.dtype.itemsize

    def buffers(self, rows: int, columns: int) -> list[Tensor]:
        """Uninitialised memory, one tensor a layer [B, K, S, D]."""
        shape = (rows, self.num_heads, columns, self.size)
        return [torch.empty(shape, dtype=self.dtype, device=self.device) for _ in range(self.num_layers)]


def alike(length: int, longest: int) -> bool:
    """Whether a memory of this length is read together with one of the length `longest`."""
    return length >= min(_LEAST_SHARE * longest, longest - _SLACK)


def padding_mask(lengths: Sequence[int], columns: int, shape: HeadShape) -> Tensor:
    """What to add to scores so that the columns behind each length are not seen [B, 1, 1, S]."""
    lengths_B = torch.tensor(lengths, device=shape.device)
    hidden_BS = torch.arange(columns, device=shape.device) >= lengths_B[:, None]
    mask_BS = torch.zeros(hidden_BS.shape, dtype=shape.dtype, device=shape.device)
    return mask_BS.masked_fill_(hidden_BS, -torch.inf)[:, None, None]
