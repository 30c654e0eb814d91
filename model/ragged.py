"""Sequences of different lengths, laid one after another on one token axis, without padding.

Attention needs equal lengths inside one call, so sequences of one length are kept next to each other: everything but
attention then works on the whole axis at once, and attention on one view per distinct length.

Shape suffixes: T tokens of all sequences together, D features, N sequences of one length, L their length,
H heads, E features per head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

Item = TypeVar("Item")

# Above 32 MiB the C allocator takes every block from the kernel anew, and the first touch of its pages costs up to a
# tenth of the time of a layer.
_CPU_PASS_BYTES = 28 * 2**20
# Enough to fill a GPU; upstream encodes about as much at a time (16 slices).
_ACCELERATOR_PASS_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring sequences of equal length on the token axis."""

    start: int
    """First token of the first sequence."""
    num_sequences: int
    length: int
    """Tokens of each sequence."""

    @property
    def stop(self) -> int:
        """The token after the last."""
        return self.start + self.num_sequences * self.length

    def view(self, x_TD: Tensor, num_heads: int) -> Tensor:
        """The block's part of [T, D] as [N, H, L, E], without copying."""
        return self.sequences(x_TD).unflatten(-1, (num_heads, -1)).transpose(1, 2)

    def sequences(self, x_TD: Tensor) -> Tensor:
        """The block's part of [T, D] as [N, L, D], without copying."""
        return x_TD[self.start : self.stop].unflatten(0, (self.num_sequences, self.length))


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
        return cls._sorted(order, [lengths[i] for i in order])

    @classmethod
    def _sorted(cls, order: Sequence[int], lengths: Sequence[int]) -> RaggedLayout:
        """Layout of sequences that stand in order already."""
        blocks: list[Block] = []
        start = 0
        for length in lengths:
            if blocks and blocks[-1].length == length:
                blocks[-1] = Block(blocks[-1].start, blocks[-1].num_sequences + 1, length)
            else:
                blocks.append(Block(start, 1, length))
            start += length
        return cls(tuple(order), tuple(blocks))

    @property
    def lengths(self) -> list[int]:
        """Tokens of the sequence at each place."""
        return [block.length for block in self.blocks for _ in range(block.num_sequences)]

    def passes(self, most_tokens: int | None) -> Iterator[RaggedLayout]:
        """Cut the axis into layouts of at most `most_tokens` tokens; a longer sequence has one of its own.

        Their orders name the same input sequences as this one's. None leaves the axis whole.
        """
        lengths, first, tokens = self.lengths, 0, 0
        for place, length in enumerate(lengths):
            if most_tokens is not None and place > first and tokens + length > most_tokens:
                yield self._sorted(self.order[first:place], lengths[first:place])
                first, tokens = place, 0
            tokens += length
        yield self._sorted(self.order[first:], lengths[first:])

    def restore(self, items: Sequence[Item]) -> list[Item]:
        """Items that stand in the order of the token axis, in the order of the input."""
        place = {i: p for p, i in enumerate(self.order)}
        return [items[place[i]] for i in range(len(items))]


def tokens_per_pass(width: int, device: torch.device) -> int | None:
    """Tokens that one pass should hold when its widest activation has `width` features; None for all of them.

    Between processes there is one pass: sharded weights are gathered by all ranks together, so all must call a module
    equally often, however many slices each has.
    """
    if distributed.is_available() and distributed.is_initialized():
        return None
    bytes_per_pass = _CPU_PASS_BYTES if device.type == "cpu" else _ACCELERATOR_PASS_BYTES
    return max(1, bytes_per_pass // (4 * width))
