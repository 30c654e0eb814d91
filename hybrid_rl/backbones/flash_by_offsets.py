"""Attention over a pack on a GPU in two calls, whatever its lengths are: flash attention of ragged batches.

The kernel takes sequences that stand one after the other, by their offsets. All segments of the pack, causal, are one
such batch; its shared prompts (keys) with the responses behind them (queries) are another.

Legend: N = columns of the pack, T = keys: N, and those of a prompt that went before, H = query heads, K = key/value
heads, D = head size, S = sequences of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_kernels import merge
from hybrid_rl.backbones.pack import Pack


@dataclass(frozen=True, slots=True)
class Offsets:
    """Where the sequences of a batch begin [S + 1], int32, and the longest one."""

    starts: Tensor
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Offsets:
        starts = list(accumulate(lengths, initial=0))
        return cls(torch.tensor(starts, dtype=torch.int32, device=device), max(lengths, default=0))


class RaggedKernel(Protocol):
    """Attention of a ragged batch: sequence s of the queries attends to sequence s of the keys.

    Tensors are [total columns, heads, D]; log-sum-exps are [H, total columns].
    """

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, queries: Offsets, keys: Offsets, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]: ...

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        queries: Offsets,
        keys: Offsets,
        *,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]: ...


@dataclass(frozen=True, slots=True)
class FlashByOffsets:
    """See `hybrid_rl.backbones.shared_attention.PackAttention`.

    Attributes:
        segments: of the whole pack.
        responses, prompts: of the shared prompts, in step.
        of_responses, of_prompts: the columns of their queries, and the places of their keys.
        kept: keys of a prompt that went before.
    """

    segments: Offsets
    responses: Offsets
    prompts: Offsets
    of_responses: Tensor
    of_prompts: Tensor
    kept: int
    kernel: RaggedKernel

    @classmethod
    def of(cls, pack: Pack, device: torch.device, kernel: RaggedKernel | None = None) -> FlashByOffsets:
        """Offsets of a pack.

        Args:
            kernel: torch's flash attention, unless another is given.
        """
        queries, keys = [p.queries for p in pack.prefixes], [p.keys for p in pack.prefixes]
        return cls(
            segments=Offsets.of([run.length for run in pack.runs for _ in range(run.count)], device),
            responses=Offsets.of([s.stop - s.start for s in queries], device),
            prompts=Offsets.of([s.stop - s.start for s in keys], device),
            of_responses=_columns(queries, device),
            of_prompts=_columns(keys, device),
            kept=pack.kept,
            kernel=kernel or TorchFlash(),
        )

    def forward(self, q_NHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        out_NHD, lse_HN = self.kernel.forward(
            q_NHD, k_TKD[self.kept :], v_TKD[self.kept :], self.segments, self.segments, causal=True, scale=scale
        )
        if len(self.of_responses):
            at, keys = self.of_responses, self.of_prompts
            out, lse = self.kernel.forward(
                q_NHD[at], k_TKD[keys], v_TKD[keys], self.responses, self.prompts, causal=False, scale=scale
            )
            joined, joined_lse = merge(out_NHD[at], lse_HN[:, at].T, out, lse.T)
            out_NHD[at] = joined
            lse_HN[:, at] = joined_lse.T
        return out_NHD, lse_HN

    def backward(
        self, grad_NHD: Tensor, q_NHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, out_NHD: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        own_k_NKD, own_v_NKD = k_TKD[self.kept :], v_TKD[self.kept :]
        dq_NHD, *own = self.kernel.backward(
            grad_NHD, q_NHD, own_k_NKD, own_v_NKD, out_NHD, lse, self.segments, self.segments, causal=True, scale=scale
        )
        dk_TKD, dv_TKD = (_behind_zeros(grad, self.kept) for grad in own)
        if len(self.of_responses):
            at, keys = self.of_responses, self.of_prompts
            dq, dk, dv = self.kernel.backward(
                grad_NHD[at],
                q_NHD[at],
                k_TKD[keys],
                v_TKD[keys],
                out_NHD[at],
                lse[:, at].contiguous(),
                self.responses,
                self.prompts,
                causal=False,
                scale=scale,
            )
            dq_NHD[at] += dq
            dk_TKD[keys] += dk
            dv_TKD[keys] += dv
        return dq_NHD, dk_TKD, dv_TKD


class TorchFlash:
    """`RaggedKernel` of torch: FlashAttention-2 (arXiv 2307.08691), in half precision on a GPU."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, queries: Offsets, keys: Offsets, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        found = torch.ops.aten._flash_attention_forward(
            q, k, v, queries.starts, keys.starts, queries.longest, keys.longest, 0.0, causal, False, scale=scale
        )
        return found[0], found[1]

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        queries: Offsets,
        keys: Offsets,
        *,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Without dropout the state of the random numbers is not read.
        unread = torch.empty(2, dtype=torch.uint64, device=q.device)
        offsets = (queries.starts, keys.starts, queries.longest, keys.longest)
        dq, dk, dv = torch.ops.aten._flash_attention_backward(
            grad, q, k, v, out, lse, *offsets, 0.0, causal, unread, unread, scale=scale
        )
        return dq, dk, dv


def _behind_zeros(grad: Tensor, count: int) -> Tensor:
    return torch.cat([grad.new_zeros(count, *grad.shape[1:]), grad]) if count else grad


def _columns(slices: Sequence[slice], device: torch.device) -> Tensor:
    columns = [i for part in slices for i in range(part.start, part.stop)]
    return torch.tensor(columns, dtype=torch.long, device=device)
