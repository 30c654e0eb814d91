"""Keys and values of what each row has said itself, in buffers that are made once.

Rows stand in the order in which they came, so that a row is at least as long as every row below it: rows that came
together, and have come to about the same length, are attended to in one call over the same columns.

Legend: B = rows, K = key/value heads, R = query heads of a key head, H = K * R, S = columns, D = head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_kernels import attend
from hybrid_rl.backbones.head_shape import HeadShape, alike, padding_mask

_CLEANED = 64
"""Columns that are zeroed together. What a mask hides is multiplied by 0, and must be a number for that."""


@dataclass(frozen=True, slots=True)
class _Band:
    """Neighbouring rows, and how many columns one of them has at most. `mask_B1TS` is None where all have as many."""

    rows: slice
    columns: int
    mask_B1TS: Tensor | None


class OwnMemory:
    """The memory of at most `rows` rows of at most `columns` tokens each."""

    def __init__(self, shape: HeadShape, rows: int, columns: int) -> None:
        self._shape = shape
        self._keys, self._values = shape.buffers(rows, columns), shape.buffers(rows, columns)
        self._clean = 0
        self._lengths: list[int] = []
        self._bands: list[_Band] = []
        self._column_B: Tensor | None = None

    def join(self, count: int) -> None:
        """So many rows come, below the others, with nothing said."""
        self._lengths += [0] * count

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows stay, in their order."""
        moved = [row for place, row in enumerate(rows) if row != place]
        first = len(rows) - len(moved)
        columns = max((self._lengths[row] for row in moved), default=0)
        if columns:
            rows_B = torch.tensor(moved, device=self._shape.device)
            for buffer in (*self._keys, *self._values):
                # A copy on the way: rows move by less than their number.
                buffer[first : len(rows), :, :columns] = buffer[:, :, :columns].index_select(0, rows_B)
        self._lengths = [self._lengths[row] for row in rows]

    def advance(self) -> None:
        """Every row gets a column for its next token, which `write` fills in each layer."""
        lengths = self._lengths
        same = all(length == lengths[0] for length in lengths)
        self._column_B = None if same else torch.tensor(lengths, device=self._shape.device)
        self._lengths = [length + 1 for length in lengths]
        self._bands = self._split()
        if self._lengths[0] > self._clean:
            self._clean += _CLEANED
            for buffer in (*self._keys, *self._values):
                buffer[:, :, self._clean - _CLEANED : self._clean] = 0

    def write(self, layer: int, k_BKD: Tensor, v_BKD: Tensor) -> None:
        """The keys and values of the rows' next tokens."""
        B = len(self._lengths)
        for buffer, new_BKD in ((self._keys[layer], k_BKD), (self._values[layer], v_BKD)):
            if self._column_B is None:
                buffer[:B, :, self._lengths[0] - 1] = new_BKD
            else:
                buffer[torch.arange(B, device=buffer.device), :, self._column_B] = new_BKD

    def attend(self, layer: int, q_BKRD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """What each row reads of its own tokens: output [B, K, R, D] and log-sum-exp [B, K, R]."""
        keys, values = self._keys[layer], self._values[layer]
        found = [
            attend_with_one_query(
                q_BKRD[band.rows],
                keys[band.rows, :, : band.columns],
                values[band.rows, :, : band.columns],
                scale,
                band.mask_B1TS,
            )
            for band in self._bands
        ]
        if len(found) == 1:
            return found[0]
        return torch.cat([out for out, _ in found]), torch.cat([lse for _, lse in found])

    def _split(self) -> list[_Band]:
        bands, start = [], 0
        while start < len(self._lengths):
            longest = self._lengths[start]
            members = [n for n in self._lengths[start:] if alike(n, longest)]
            rows = slice(start, start + len(members))
            bands.append(_Band(rows, longest, self._mask(members)))
            start = rows.stop
        return bands

    def _mask(self, lengths: Sequence[int]) -> Tensor | None:
        return padding_mask(lengths, lengths[0], self._shape) if lengths[-1] < lengths[0] else None


def attend_with_one_query(
    q_BKRD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, scale: float, mask_B1TS: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention of one token a row: output [B, K, R, D] and log-sum-exp [B, K, R].

    In float32 on a CPU two matrix products read the keys and values faster than the flash kernel, which cuts queries
    into blocks that one query does not fill.
    """
    if q_BKRD.dtype is not torch.float32 or q_BKRD.device.type != "cpu":
        # The query heads of a key head are so many queries of it.
        return attend(q_BKRD, k_BKSD, v_BKSD, scale=scale, mask_B1TS=mask_B1TS)
    scores_BKRS = torch.matmul(q_BKRD * scale, k_BKSD.transpose(-1, -2))
    if mask_B1TS is not None:
        scores_BKRS += mask_B1TS
    largest_BKR1 = scores_BKRS.amax(-1, keepdim=True)
    weights_BKRS = scores_BKRS.sub_(largest_BKR1).exp_()
    total_BKR1 = weights_BKRS.sum(-1, keepdim=True)
    out_BKRD = torch.matmul(weights_BKRS, v_BKSD).div_(total_BKR1)
    return out_BKRD, total_BKR1.log_().add_(largest_BKR1)[..., 0]
