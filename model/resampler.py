"""The unified 3D-Resampler: any number of patches to a fixed number of tokens (arXiv 2509.18154, section 2).

A package is what becomes one set of tokens: one slice of a picture, or several frames of a video encoded together.
Learned queries attend once over all patches of the package; keys know where (row, column) and when (tick) a patch is,
values do not.

Shape suffixes: T patches of all packages together, V features of the vision tower, D features of the language model,
N packages of one length, B packages, Q queries, H heads, R queries of all heads (H * Q), L patches of a package,
E features per head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .linear import Linear, linear, matmul
from .ragged import RaggedLayout, tokens_per_pass

STILL = -1
"""Temporal id of a picture that is no video frame; adds no time to its keys."""

_WAVELENGTH_BASE = 10000
"""Longest wavelength of the sine positions, as in Attention Is All You Need, section 3.5."""

# Weights were trained with epsilon 1e-6, not torch's 1e-5.
_NORM_EPS = 1e-6


def sine_frequencies(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Frequency j of `count`, 10000^(-j / count) in radians per step, the same bits on every machine.

    At late ticks of a long video the last bit of a frequency moves an angle by up to 1e-2, and the released code takes
    numpy's float32 power, which rounds differently from processor to processor. Here it is worked out as numpy does
    where there is AVX-512, on the machines that the released weights were trained and the golden values made on: of
    2^(k/16 + r) the first factor is exact to float32, and (2^r - 1) / r a polynomial evaluated in float32.
    """
    exponents = np.arange(count, dtype=np.float32) / np.float32(count)
    sixteenths, rest = np.divmod(exponents.astype(np.float64) * math.log2(_WAVELENGTH_BASE) * 16, 1)
    rest = (rest / 16).astype(np.float32)
    power = np.exp2(sixteenths % 16 / 16).astype(np.float32)
    series = _multiply_add(rest, _multiply_add(rest, _EXP2_SERIES[2], _EXP2_SERIES[1]), _EXP2_SERIES[0])
    return 1 / np.ldexp(_multiply_add(rest * power, series, power), (sixteenths // 16).astype(np.int32))


# (2^r - 1) / r = c0 + c1 r + c2 r^2 within float32 for 0 <= r < 1/16.
_EXP2_SERIES = (np.float32(0.6931478), np.float32(0.24017876), np.float32(0.05672149))


def _multiply_add(factor: Any, other: Any, addend: Any) -> Any:
    """factor * other + addend in float32, rounded once: products of float32 are exact in float64."""
    return (np.float64(factor) * np.float64(other) + np.float64(addend)).astype(np.float32)


def sine_rows(positions: Sequence[int], width: int) -> Tensor:
    """Sine positions [len(positions), width] in float32: sines of all frequencies, then cosines of all frequencies."""
    angles = np.asarray(positions, dtype=np.float32)[:, None] * sine_frequencies(width // 2)
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))


@lru_cache(maxsize=256)
def axis_rows(count: int, width: int) -> Tensor:
    """Sine positions [count, width] of 0, 1, ... along one axis; the same few counts come again and again."""
    return sine_rows(range(count), width)


def grid_rows(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """Positions [rows * columns, width] of a grid in row-major order: first half the column, second half the row."""
    row = axis_rows(rows, width // 2).to(device)[:, None].expand(rows, columns, -1)
    column = axis_rows(columns, width // 2).to(device)[None, :].expand(rows, columns, -1)
    return torch.cat([column, row], dim=-1).flatten(0, 1)


def key_positions(
    grids: Sequence[tuple[int, int]], ticks: Sequence[int], width: int, device: torch.device | None = None
) -> Tensor:
    """Position of every patch [T, width] in float32: place in the frame plus time of the frame.

    Only the rows in use are computed; whole tables of the released size take a gigabyte.

    Args:
        grids: per frame (rows, columns) in patches.
        ticks: per frame its time in tenths of a second, or STILL.
        width: features of a key.
        device: where the rows are needed.
    """
    times = sine_rows(ticks, width).to(device)
    return torch.cat(
        [
            grid_rows(rows, columns, width, device) + (0 if tick == STILL else time)
            for (rows, columns), tick, time in zip(grids, ticks, times, strict=True)
        ]
    )


class CrossAttention(nn.Module):
    """Attention of shared queries over packages of different lengths.

    Parameters are named and stacked as in torch's MultiheadAttention, because checkpoints are. But no key or value is
    ever projected: with the queries shared, q . (W_k x) = (W_k' q) . x and W_v (sum of p x) = sum of p (W_v x), so the
    key and value maps act on the few queries of each head instead of on all patches. That halves the products for 64
    queries and heads 128 wide, and stores attention weights (Q * H a patch) instead of keys and values (2 * D a patch).
    The bias of the keys adds one number to all scores of a query, which the softmax does not see.
    """

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * hidden_size))
        self.out_proj = Linear(hidden_size, hidden_size)

    def forward(self, q_QD: Tensor, k_TD: Tensor, v_TD: Tensor, layout: RaggedLayout) -> Tensor:
        """[B, Q, D], packages in the order of the layout's token axis."""
        weight_q, weight_k, weight_v = self.in_proj_weight.chunk(3)
        bias_q, _, bias_v = self.in_proj_bias.chunk(3)
        q_HQE = linear(q_QD, weight_q, bias_q).unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
        scale = q_HQE.shape[-1] ** -0.5
        probes_RD = matmul(q_HQE * scale, weight_k.unflatten(0, (self.num_heads, -1))).flatten(0, 1)
        mixed: list[Tensor] = []
        for block in layout.blocks:
            probes_NRD = probes_RD.expand(block.num_sequences, -1, -1)
            scores_NRL = matmul(probes_NRD, block.sequences(k_TD).transpose(1, 2))
            at_least_float32 = torch.promote_types(scores_NRL.dtype, torch.float32)
            weights_NRL = scores_NRL.softmax(-1, dtype=at_least_float32).to(v_TD)
            mixed.append(matmul(weights_NRL, block.sequences(v_TD)))
        weight_HDE = weight_v.unflatten(0, (self.num_heads, -1)).transpose(1, 2)
        # One package at a time: batched, torch would copy the weight for each.
        per_package = [m_RD.unflatten(0, (self.num_heads, -1)) for m_NRD in mixed for m_RD in m_NRD]
        out_BHQE = torch.stack([matmul(m_HQD, weight_HDE) for m_HQD in per_package])
        return self.out_proj(out_BHQE.transpose(1, 2).flatten(2) + bias_v)


class Resampler(nn.Module):
    """Turn packages of vision features into tokens of the language model.

    Args:
        num_queries: tokens per package.
        hidden_size: features of the language model.
        num_heads: attention heads.
        vision_size: features of the vision tower.
    """

    def __init__(self, num_queries: int, hidden_size: int, num_heads: int, vision_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.query = nn.Parameter(torch.empty(num_queries, hidden_size))
        # Equal widths need no map, and checkpoints of such models have none.
        same = vision_size == hidden_size
        self.kv_proj: nn.Module = nn.Identity() if same else Linear(vision_size, hidden_size, bias=False)
        self.attn = CrossAttention(hidden_size, num_heads)
        self.ln_q = nn.LayerNorm(hidden_size, eps=_NORM_EPS)
        self.ln_kv = nn.LayerNorm(hidden_size, eps=_NORM_EPS)
        self.ln_post = nn.LayerNorm(hidden_size, eps=_NORM_EPS)
        self.proj = nn.Parameter(torch.empty(hidden_size, hidden_size))

    def forward(
        self,
        frames: Sequence[Tensor],
        grids: Sequence[tuple[int, int]],
        packages: Sequence[Sequence[int]],
    ) -> Tensor:
        """Tokens of every package.

        Args:
            frames: per frame [L, V], all frames of the first package first.
            grids: per frame (rows, columns) in patches.
            packages: per package the ticks of its frames in tenths of a second; [-1] for a picture.

        Returns:
            [B, Q, D], in the order of `packages`.

        Raises:
            ValueError: the packages do not hold exactly the frames given, or one of them is empty.
        """
        if sum(map(len, packages)) != len(frames) or not all(map(len, packages)):
            raise ValueError(
                f"The temporal ids describe {sum(map(len, packages))} frames in packages of at least one, "
                f"but {len(frames)} frames were given."
            )
        members = _members(packages)
        layout = RaggedLayout.of([sum(frames[i].shape[0] for i in frame_ids) for frame_ids in members])
        # No batch of media needs more at once, and an hour of video would need gigabytes.
        most = tokens_per_pass(self.hidden_size, self.query.device)
        parts = [self._resample(run, frames, grids, packages, members) for run in layout.passes(most)]
        back = torch.tensor(layout.order, device=self.query.device).argsort()
        return torch.cat(parts)[back]

    def _resample(
        self,
        layout: RaggedLayout,
        frames: Sequence[Tensor],
        grids: Sequence[tuple[int, int]],
        packages: Sequence[Sequence[int]],
        members: Sequence[range],
    ) -> Tensor:
        """Tokens of the packages that a layout names, in its order."""
        frame_order = [i for package in layout.order for i in members[package]]
        ticks = [tick for package in layout.order for tick in packages[package]]
        kv_TD = self.ln_kv(self.kv_proj(torch.cat([frames[i] for i in frame_order])))
        positions_TD = key_positions([grids[i] for i in frame_order], ticks, self.hidden_size, kv_TD.device)
        out_BQD = self.attn(self.ln_q(self.query), kv_TD + positions_TD.to(kv_TD), kv_TD, layout)
        return matmul(self.ln_post(out_BQD), self.proj)


def _members(packages: Sequence[Sequence[int]]) -> list[range]:
    """Indices of the frames of each package."""
    members: list[range] = []
    start = 0
    for package in packages:
        members.append(range(start, start + len(package)))
        start += len(package)
    return members
