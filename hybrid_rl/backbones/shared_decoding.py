"""Responses on their way that stand on shared prompts: each prompt is remembered once, each response on its own.

A row attends to its prompt and to what it has said itself in two calls, whose outputs are joined by their
log-sum-exps (`attention_kernels.merge`).

Legend: B = rows, H = query heads, K = key/value heads, T = tokens of a pass, N = tokens of prompts end to end,
P = prompt length, D = head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_kernels import attend, merge
from hybrid_rl.backbones.head_shape import HeadShape
from hybrid_rl.backbones.own_memory import OwnMemory
from hybrid_rl.backbones.prefix_memory import PrefixMemory


class SharedDecoding:
    """The memory of rows on prompts, and the attention plan of a pass in which each row is fed its next token.

    Args:
        prompt_lengths: of every prompt that may come; prompts are named by their place here.
        rows: most rows together.
        columns: most tokens that a row is fed.
    """

    def __init__(self, shape: HeadShape, prompt_lengths: Sequence[int], rows: int, columns: int) -> None:
        self._lengths = prompt_lengths
        # One prompt may wait for its next row to come while every row there is stands on another.
        self._prefix = PrefixMemory(shape, prompt_lengths, rows + 1)
        self._own = OwnMemory(shape, rows, columns)
        self._prompts: list[int] = []
        self._position_B = torch.empty(0, dtype=torch.long, device=shape.device)

    def prefill(self, prompts: Sequence[int]) -> Prefill:
        """The attention plan of a pass over these prompts, end to end in one row; they are remembered from then on."""
        self._prefix.open(prompts)
        return Prefill(self._prefix, prompts, [self._lengths[prompt] for prompt in prompts])

    def join(self, prompts: Sequence[int], positions: Sequence[int]) -> None:
        """A row comes for each of these prompts; its first token will have this position."""
        self._prompts += prompts
        self._own.join(len(prompts))
        new_B = torch.tensor(positions, dtype=torch.long, device=self._position_B.device)
        self._position_B = torch.cat([self._position_B, new_B])
        self._prefix.arrange(self._prompts)

    def keep(self, rows: Sequence[int], done: Sequence[int] = ()) -> None:
        """Only these rows stay, in their order.

        Args:
            done: prompts that no row stands on any more, nor will.
        """
        self._own.keep(rows)
        self._position_B = self._position_B[torch.tensor(rows, dtype=torch.long, device=self._position_B.device)]
        self._prompts = [self._prompts[row] for row in rows]
        for prompt in done:
            self._prefix.close(prompt)
        self._prefix.arrange(self._prompts)

    def advance(self) -> Tensor:
        """Make room for one token a row; returns its positions [B]."""
        self._own.advance()
        positions_B = self._position_B
        self._position_B = positions_B + 1
        return positions_B

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, scale: float) -> Tensor:
        """See `AttentionPlan`; T = 1."""
        B, H, _, D = q_BHTD.shape
        K = k_BKTD.shape[1]
        self._own.write(layer, k_BKTD[:, :, 0], v_BKTD[:, :, 0])
        # Positions may have been applied in float32.
        q_BKRD = q_BHTD.to(v_BKTD.dtype).reshape(B, K, H // K, D)
        said, lse_of_said = self._own.attend(layer, q_BKRD, scale)
        read, lse_of_read = self._prefix.attend(layer, q_BKRD, scale)
        out_BKRD, _ = merge(read, lse_of_read, said, lse_of_said)
        return out_BKRD.reshape(B, 1, H, D)


class Prefill:
    """The attention plan of a pass over prompts end to end [1, N]: each sees itself alone, and is remembered."""

    def __init__(self, memory: PrefixMemory, prompts: Sequence[int], lengths: Sequence[int]) -> None:
        self._memory, self._prompts, self._lengths = memory, prompts, lengths

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, scale: float) -> Tensor:
        """See `AttentionPlan`; B = 1, T = N."""
        q_HND, k_KND, v_KND = q_BHTD[0].to(v_BKTD.dtype), k_BKTD[0].to(v_BKTD.dtype), v_BKTD[0]
        found, start = [], 0
        prompts = iter(self._prompts)
        for length, run in groupby(self._lengths):
            count = len(list(run))
            stop = start + count * length
            q, k, v = (x[:, start:stop].unflatten(1, (count, length)).transpose(0, 1) for x in (q_HND, k_KND, v_KND))
            for i in range(count):
                self._memory.write(layer, next(prompts), k[i], v[i])
            out_UHPD, _ = attend(q, k, v, scale=scale, causal=True)
            found.append(out_UHPD.transpose(1, 2).flatten(0, 1))
            start = stop
        return torch.cat(found)[None]
