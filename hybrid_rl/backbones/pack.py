"""Prompts and responses in one row without padding, each prompt once: [prompt | response | response | prompt | ...].

Positions go on behind the prompt for every response of it. A token of a response attends to its prompt and to its own
response so far (`shared_attention`). A prompt with one response is one piece with it, as in any packed batch.

Columns are gathered from the strip of `layout`, [blank | prompt 0 | prompt 1 ... | response 0 | response 1 ...]; there
is no padding, so the blank is not used.

Responses to one prompt may also stand by themselves, behind a prompt that went before (`kept_prompt`).

Legend: N = columns of the pack, M = response tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Run:
    """`count` neighbouring segments of `length` columns each, from column `start`. A segment is causal in itself."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.count * self.length


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys of a prompt, and columns `queries` of the responses behind it, which all attend to it."""

    keys: slice
    queries: slice


@dataclass(frozen=True, slots=True)
class Pack:
    """Attributes; the tensors are on the CPU:
    runs: all columns, as segments.
    prefixes: of the prompts that several responses share.
    prompts: the prompts in the order of their columns.
    index_N: the place in the strip that a column is taken from.
    positions_N: position of each column in its own sequence, from 0.
    predictors_M: the column that predicts each response token, the rows one after the other in the order they came; -1
        for the last one of a prompt that went before.
    kept: tokens of a prompt that went before. Its keys stand in front of those of the columns.
    """

    runs: tuple[Run, ...]
    prefixes: tuple[Prefix, ...]
    prompts: tuple[int, ...]
    index_N: Tensor
    positions_N: Tensor
    predictors_M: Tensor
    kept: int = 0

    @property
    def num_tokens(self) -> int:
        return len(self.index_N)

    @classmethod
    def of(cls, prompt_lengths: Sequence[int], prompt_of_row: Sequence[int], response_lengths: Sequence[int]) -> Pack:
        """Lay out rows; those that name the same prompt share it."""
        return _Builder(prompt_lengths, prompt_of_row, response_lengths).pack()

    @classmethod
    def alone(cls, prompt_length: int) -> Pack:
        """Lay out a prompt without responses."""
        return cls.of([prompt_length], [0], [0])

    @classmethod
    def behind(cls, prompt_length: int, response_lengths: Sequence[int]) -> Pack:
        """Lay out responses to one prompt that went before."""
        return _Builder([prompt_length], [0] * len(response_lengths), response_lengths).pack_behind()


class _Builder:
    def __init__(
        self, prompt_lengths: Sequence[int], prompt_of_row: Sequence[int], response_lengths: Sequence[int]
    ) -> None:
        self._prompt_lengths, self._response_lengths = prompt_lengths, response_lengths
        starts = list(accumulate([*prompt_lengths, *response_lengths], initial=1))
        self._prompt_places, self._response_places = starts[: len(prompt_lengths)], starts[len(prompt_lengths) :]
        self._rows: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompt_of_row):
            self._rows.setdefault(prompt, []).append(row)
        self._column = 0
        self._index: list[Tensor] = []
        self._positions: list[Tensor] = []
        self._predictors: dict[int, Tensor] = {}

    def pack(self) -> Pack:
        alone = [u for u, rows in self._rows.items() if len(rows) == 1]
        shared = [u for u, rows in self._rows.items() if len(rows) > 1]
        # Neighbours of one length are attended to in one call.
        alone.sort(key=lambda u: self._prompt_lengths[u] + self._response_lengths[self._rows[u][0]])
        lengths: list[int] = []
        prefixes: list[Prefix] = []
        for u in alone:
            begin = self._column
            end = self._add_prompt(u)
            self._add_response(self._rows[u][0], u, end - 1)
            lengths.append(self._column - begin)
        for u in shared:
            begin, end = self._column, self._add_prompt(u)
            lengths += [end - begin, *self._add_responses(u, end - 1)]
            prefixes.append(Prefix(slice(begin, end), slice(end, self._column)))
        return self._made(lengths, prefixes, (*alone, *shared))

    def pack_behind(self) -> Pack:
        """Of the only prompt, which is not in it."""
        lengths = self._add_responses(0, -1)
        kept = self._prompt_lengths[0]
        return self._made(lengths, [Prefix(slice(0, kept), slice(0, self._column))], (), kept)

    def _made(
        self, lengths: Sequence[int], prefixes: Sequence[Prefix], prompts: tuple[int, ...], kept: int = 0
    ) -> Pack:
        return Pack(
            runs=tuple(_runs(lengths)),
            prefixes=tuple(prefixes),
            prompts=prompts,
            index_N=torch.cat(self._index),
            positions_N=torch.cat(self._positions),
            predictors_M=torch.cat([self._predictors[row] for row in range(len(self._response_lengths))]),
            kept=kept,
        )

    def _add_prompt(self, u: int) -> int:
        """Returns the column behind it."""
        self._add(self._prompt_places[u], self._prompt_lengths[u], 0)
        return self._column

    def _add_responses(self, u: int, last_of_prompt: int) -> list[int]:
        """All to a prompt, long ones first, so that neighbours are of one length. Returns their lengths."""
        rows = sorted(self._rows[u], key=lambda row: -self._response_lengths[row])
        for row in rows:
            self._add_response(row, u, last_of_prompt)
        return [self._response_lengths[row] for row in rows]

    def _add_response(self, row: int, u: int, last_of_prompt: int) -> None:
        length, begin = self._response_lengths[row], self._column
        self._add(self._response_places[row], length, self._prompt_lengths[u])
        predictors = torch.arange(begin - 1, begin - 1 + length)
        predictors[:1] = last_of_prompt
        self._predictors[row] = predictors

    def _add(self, place: int, length: int, position: int) -> None:
        self._index.append(torch.arange(place, place + length))
        self._positions.append(torch.arange(position, position + length))
        self._column += length


def _runs(lengths: Sequence[int]) -> list[Run]:
    """Neighbouring segments of one length as one run."""
    starts = accumulate(lengths, initial=0)
    segments = [(a, b - a) for a, b in pairwise(starts) if b > a]
    runs = []
    for length, members in groupby(segments, key=lambda segment: segment[1]):
        found = list(members)
        runs.append(Run(found[0][0], len(found), length))
    return runs
