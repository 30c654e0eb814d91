"""Attention over a pack: every segment causally in itself, and responses to the prompt that they share.

The keys and values of a prompt that went before (`kept_prompt`) stand in front of those of the columns.

The two parts of a response's attention are joined by their log-sum-exps, and its backward pass runs over the same parts
with the joined output (`attention_kernels`): the gradient is exact, nothing is masked, and no work is done on padding
or between sequences.

Legend: N = columns of the pack, T = keys: N, and those of a prompt that went before, H = query heads, K = key/value
heads, D = head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_kernels import attend, attend_backward, has_cuda_flash, merge
from hybrid_rl.backbones.flash_by_offsets import FlashByOffsets
from hybrid_rl.backbones.pack import Pack, Run

LayerKeys = Mapping[int, tuple[Tensor, Tensor]]


class KeyRecorder:
    """Keys and values of the layers of one forward pass, as attention was given them, until they are taken."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] | None = {}

    def note(self, layer: int, k_TKD: Tensor, v_TKD: Tensor) -> None:
        # A checkpointed layer comes by again in the backward pass, and keeps the plan until then: it must not lead back
        # to the graph that it is part of.
        if self._layers is not None:
            self._layers[layer] = k_TKD, v_TKD

    def take(self) -> dict[int, tuple[Tensor, Tensor]]:
        """What was noted. From now on nothing is."""
        found, self._layers = self._layers or {}, None
        return found


class PackAttention(Protocol):
    """How the attention over a pack is computed. All tensors have the columns first and are contiguous."""

    def forward(self, q_NHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Output [N, H, D], and the log-sum-exp in whatever form `backward` wants it."""
        ...

    def backward(
        self, grad_NHD: Tensor, q_NHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, out_NHD: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries, keys and values."""
        ...


@dataclass(frozen=True, slots=True)
class SharedAttentionPlan:
    """See `hybrid_rl.backbones.attention_plan.AttentionPlan`: the tokens of one pack.

    Attributes:
        by_runs: for any tensors.
        by_offsets: for those that the GPU's flash attention reads; None on other devices.
        kept: keys and values of each layer of a prompt that went before [P, K, D].
        recorder: is told those of this pack.
    """

    by_runs: ByRuns
    by_offsets: FlashByOffsets | None
    kept: LayerKeys | None
    recorder: KeyRecorder | None

    @classmethod
    def of(
        cls,
        pack: Pack,
        device: torch.device,
        *,
        kept: LayerKeys | None = None,
        recorder: KeyRecorder | None = None,
    ) -> SharedAttentionPlan:
        by_offsets = FlashByOffsets.of(pack, device) if device.type == "cuda" else None
        return cls(ByRuns(pack), by_offsets, kept, recorder)

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, scale: float) -> Tensor:
        device = q_BHTD.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            q_BHTD, k_BKTD, v_BKTD = q_BHTD.to(dtype), k_BKTD.to(dtype), v_BKTD.to(dtype)
        parts: PackAttention = self.by_runs
        if self.by_offsets is not None and has_cuda_flash(q_BHTD):
            parts = self.by_offsets
        q_NHD, k_TKD, v_TKD = (x[0].transpose(0, 1) for x in (q_BHTD, k_BKTD, v_BKTD))
        if self.recorder is not None:
            self.recorder.note(layer, k_TKD, v_TKD)
        if self.kept is not None:
            k_TKD, v_TKD = (torch.cat(both) for both in zip(self.kept[layer], (k_TKD, v_TKD), strict=True))
        return attend_to_pack(q_NHD, k_TKD, v_TKD, parts, scale)[None]


def attend_to_pack(q_NHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, parts: PackAttention, scale: float) -> Tensor:
    """The attention over a pack [N, H, D], with its gradient."""
    out_NHD: Tensor = _PackAttention.apply(q_NHD, k_TKD, v_TKD, parts, scale)
    return out_NHD


class _PackAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_NHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, parts: PackAttention, scale: float) -> Tensor:
        q_NHD, k_TKD, v_TKD = q_NHD.contiguous(), k_TKD.contiguous(), v_TKD.contiguous()
        out_NHD, lse = parts.forward(q_NHD, k_TKD, v_TKD, scale)
        ctx.save_for_backward(q_NHD, k_TKD, v_TKD, out_NHD, lse)
        ctx.parts, ctx.scale = parts, scale
        return out_NHD

    @staticmethod
    def backward(ctx: Any, grad_NHD: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.parts.backward(grad_NHD.contiguous(), *ctx.saved_tensors, ctx.scale), None, None)


@dataclass(frozen=True, slots=True)
class ByRuns:
    """A call for each run of segments of one length, and one for each shared prompt: on any device, in any dtype."""

    pack: Pack

    def forward(self, q_NHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        out_NHD = torch.empty_like(q_NHD)
        own_k_NKD, own_v_NKD = k_TKD[self.pack.kept :], v_TKD[self.pack.kept :]
        lse_NH = q_NHD.new_empty(q_NHD.shape[:2], dtype=torch.promote_types(q_NHD.dtype, torch.float32))
        for run in self.pack.runs:
            out, lse = attend(*(_segments(x, run) for x in (q_NHD, own_k_NKD, own_v_NKD)), scale=scale, causal=True)
            _segments(out_NHD, run).copy_(out)
            _segments(lse_NH, run).copy_(lse)
        for prefix in self.pack.prefixes:
            keys, queries = prefix.keys, prefix.queries
            out, lse = attend(*(_row(x) for x in (q_NHD[queries], k_TKD[keys], v_TKD[keys])), scale=scale)
            out_NHD[queries], lse_NH[queries] = merge(
                out_NHD[queries], lse_NH[queries], out[0].transpose(0, 1), lse[0].transpose(0, 1)
            )
        return out_NHD, lse_NH

    def backward(
        self, grad_NHD: Tensor, q_NHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, out_NHD: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        kept = self.pack.kept
        grads = tuple(torch.empty_like(x) for x in (q_NHD, k_TKD, v_TKD))
        for whole in grads[1:]:
            whole[:kept] = 0
        own = (grads[0], grads[1][kept:], grads[2][kept:])
        for run in self.pack.runs:
            given = [_segments(x, run) for x in (grad_NHD, q_NHD, k_TKD[kept:], v_TKD[kept:], out_NHD, lse)]
            for whole, found in zip(own, attend_backward(*given, scale=scale, causal=True), strict=True):
                _segments(whole, run).copy_(found)
        for prefix in self.pack.prefixes:
            keys, queries = prefix.keys, prefix.queries
            given = [grad_NHD[queries], q_NHD[queries], k_TKD[keys], v_TKD[keys], out_NHD[queries], lse[queries]]
            parts = attend_backward(*map(_row, given), scale=scale)
            for whole, columns, part in zip(grads, (queries, keys, keys), parts, strict=True):
                whole[columns] += part[0].transpose(0, 1)
        return grads[0], grads[1], grads[2]


def _segments(x_NX: Tensor, run: Run) -> Tensor:
    """The columns of a run, [N, H, ...] seen as [segments, H, columns of a segment, ...]."""
    return x_NX[run.start : run.stop].unflatten(0, (run.count, run.length)).transpose(1, 2)


def _row(x_TX: Tensor) -> Tensor:
    """Columns [T, H, ...] seen as a batch of one [1, H, T, ...]."""
    return x_TX.transpose(0, 1)[None]
