"""Keys and values of prompts: one copy a prompt, read by all responses to it in one call.

The queries of a prompt's responses are folded into one block of queries, since all of them see the whole prompt.
Prompts of about the same length lie on one shelf and are attended to in one call; the rest of a shelf's columns is
masked.

Legend: B = rows, K = key/value heads, R = query heads of a key head, U = prompts on a shelf, M = most rows that a
prompt has, P = prompt length, S = columns of a shelf, D = head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_kernels import attend
from hybrid_rl.backbones.head_shape import HeadShape, alike, padding_mask


@dataclass(frozen=True, slots=True)
class _Fold:
    """How the rows of a shelf become queries of its prompts.

    Attributes:
        rows_N: which rows; None where it is all of them.
        row_UM: the row that asks in each place; an empty place repeats a row, and nobody reads what it found.
        prompt_N, member_N: the place of each row.
        straight: rows are places already, one after the other.
    """

    rows_N: Tensor | None
    row_UM: Tensor
    prompt_N: Tensor
    member_N: Tensor
    mask_U1TS: Tensor | None
    straight: bool


class _Shelf:
    """Room for prompts of at most `columns` tokens."""

    def __init__(self, shape: HeadShape, room: int, columns: int) -> None:
        self._shape, self._columns = shape, columns
        self.keys, self.values = shape.buffers(room, columns), shape.buffers(room, columns)
        self.prompts: list[int] = []
        self._lengths: list[int] = []
        self.fold: _Fold | None = None

    def put(self, prompt: int, length: int) -> None:
        if length < self._columns:
            # What a mask hides is multiplied by 0, and must be a number for that.
            for buffer in (*self.keys, *self.values):
                buffer[len(self.prompts), :, length:] = 0
        self.prompts.append(prompt)
        self._lengths.append(length)

    def remove(self, prompt: int) -> None:
        """The last prompt takes its place."""
        place, last = self.prompts.index(prompt), len(self.prompts) - 1
        if place < last:
            length = self._lengths[last]
            for buffer in (*self.keys, *self.values):
                buffer[place, :, :length] = buffer[last, :, :length]
        for entries in (self.prompts, self._lengths):
            entries[place] = entries[last]
            entries.pop()

    def arrange(self, prompt_of_row: Sequence[int]) -> None:
        """Fold the rows that stand now; no fold where none of them is of this shelf."""
        rows_of: dict[int, list[int]] = {prompt: [] for prompt in self.prompts}
        for row, prompt in enumerate(prompt_of_row):
            if prompt in rows_of:
                rows_of[prompt].append(row)
        members = list(rows_of.values())
        M = max(map(len, members), default=0)
        if M == 0:
            self.fold = None
            return
        places = sorted((row, u, m) for u, rows in enumerate(members) for m, row in enumerate(rows))
        rows = [row for row, _, _ in places]
        flat = [rows_[m] if m < len(rows_) else rows[0] for rows_ in members for m in range(M)]
        everyone = len(rows) == len(prompt_of_row)
        make = self._index
        self.fold = _Fold(
            rows_N=None if everyone else make(rows),
            row_UM=make(flat).view(-1, M),
            prompt_N=make([u for _, u, _ in places]),
            member_N=make([m for _, _, m in places]),
            mask_U1TS=self._mask(),
            straight=everyone and flat == rows,
        )

    def attend(self, layer: int, q_BKRD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """What the rows of this shelf read of their prompts: output [N, K, R, D] and log-sum-exp [N, K, R]."""
        fold = self.fold
        assert fold is not None
        (U, M), (_, K, R, D) = fold.row_UM.shape, q_BKRD.shape
        q_UMKRD = q_BKRD.view(U, M, K, R, D) if fold.straight else q_BKRD[fold.row_UM]
        q_UKTD = q_UMKRD.transpose(1, 2).reshape(U, K, M * R, D)
        S = max(self._lengths)
        keys, values = self.keys[layer][:U, :, :S], self.values[layer][:U, :, :S]
        out_UKTD, lse_UKT = attend(q_UKTD, keys, values, scale=scale, mask_B1TS=fold.mask_U1TS)
        place = (fold.prompt_N, slice(None), fold.member_N)
        return out_UKTD.reshape(U, K, M, R, D)[place], lse_UKT.reshape(U, K, M, R)[place]

    def _mask(self) -> Tensor | None:
        longest = max(self._lengths)
        ragged = any(length < longest for length in self._lengths)
        return padding_mask(self._lengths, longest, self._shape) if ragged else None

    def _index(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=self._shape.device)


class PrefixMemory:
    """The memory of the prompts that rows stand on.

    Args:
        lengths: of every prompt that may come.
        most: prompts that are there together, at most.
    """

    def __init__(self, shape: HeadShape, lengths: Sequence[int], most: int) -> None:
        self._lengths = lengths
        self._shelves: list[_Shelf] = []
        self._shelf_of: list[_Shelf] = [None] * len(lengths)  # type: ignore[list-item] # filled below
        for prompts in shelves_of(lengths):
            shelf = _Shelf(shape, min(most, len(prompts)), lengths[prompts[0]])
            self._shelves.append(shelf)
            for prompt in prompts:
                self._shelf_of[prompt] = shelf

    def open(self, prompts: Sequence[int]) -> None:
        """These prompts come; `write` fills in their tokens, layer by layer."""
        for prompt in prompts:
            self._shelf_of[prompt].put(prompt, self._lengths[prompt])

    def write(self, layer: int, prompt: int, k_KPD: Tensor, v_KPD: Tensor) -> None:
        """The keys and values of a prompt's tokens."""
        shelf = self._shelf_of[prompt]
        place, length = shelf.prompts.index(prompt), self._lengths[prompt]
        shelf.keys[layer][place, :, :length] = k_KPD
        shelf.values[layer][place, :, :length] = v_KPD

    def close(self, prompt: int) -> None:
        """No row will ask for this prompt again."""
        self._shelf_of[prompt].remove(prompt)

    def arrange(self, prompt_of_row: Sequence[int]) -> None:
        """From now on these are the rows, each with its prompt."""
        for shelf in self._shelves:
            shelf.arrange(prompt_of_row)

    def attend(self, layer: int, q_BKRD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """What each row reads of its prompt: output [B, K, R, D] and log-sum-exp [B, K, R]."""
        asked = [(shelf, shelf.fold) for shelf in self._shelves if shelf.fold is not None]
        if len(asked) == 1:
            return asked[0][0].attend(layer, q_BKRD, scale)
        out_BKRD, lse_BKR = torch.empty_like(q_BKRD), None
        for shelf, fold in asked:
            out_NKRD, lse_NKR = shelf.attend(layer, q_BKRD, scale)
            if lse_BKR is None:
                lse_BKR = lse_NKR.new_empty(q_BKRD.shape[:-1])
            out_BKRD[fold.rows_N], lse_BKR[fold.rows_N] = out_NKRD, lse_NKR
        assert lse_BKR is not None
        return out_BKRD, lse_BKR


def shelves_of(lengths: Sequence[int]) -> list[list[int]]:
    """Prompts of like lengths together, the longest first, shelf by shelf and on each shelf."""
    shelves: list[list[int]] = []
    for prompt in sorted(range(len(lengths)), key=lambda u: -lengths[u]):
        if shelves and alike(lengths[prompt], lengths[shelves[-1][0]]):
            shelves[-1].append(prompt)
        else:
            shelves.append([prompt])
    return shelves
