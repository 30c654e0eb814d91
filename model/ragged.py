"""Sequences of different lengths, laid one after another on one token axis, without padding.

Attention needs equal lengths inside one call, so sequences of one length are kept next to each other: everything but
attention then works on the whole axis at once, and attention on one view per distinct length.

Shape suffixes: T tokens of all sequences together, D features, N sequences of one length, L their length,
H heads, E features per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring sequences of equal length on the token axis."""

    start: int
    """First token of the first sequence."""
    num_sequences: int
    length: int
    """Tokens of each sequence."""

    def view(self, x_TD: Tensor, num_heads: int) -> Tensor:
        """The block's part of [T, D] as [N, H, L, E], without copying."""
        stop = self.start + self.num_sequences * self.length
        return x_TD[self.start : stop].view(self.num_sequences, self.length, num_heads, -1).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class RaggedLayout:
    """Order of the sequences on the token axis, and its blocks."""

    order: tuple[int, ...]
    """Index of the input sequence at each place."""
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> RaggedLayout:
        """Layout for sequences of these lengths (tokens), shortest first, equal ones in the order given."""
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        blocks: list[Block] = []
        start = 0
        for place, i in enumerate(order):
            length = lengths[i]
            if place and lengths[order[place - 1]] == length:
                last = blocks[-1]
                blocks[-1] = Block(last.start, last.num_sequences + 1, length)
            else:
                blocks.append(Block(start, 1, length))
            start += length
        return cls(tuple(order), tuple(blocks))

    def unpack(self, x_TD: Tensor) -> list[Tensor]:
        """Cut [T, D] into the sequences [L, D], in the order of the input."""
        lengths = [block.length for block in self.blocks for _ in range(block.num_sequences)]
        parts = x_TD.split(lengths)
        out: list[Tensor] = [parts[0]] * len(parts)
        for place, i in enumerate(self.order):
            out[i] = parts[place]
        return out
