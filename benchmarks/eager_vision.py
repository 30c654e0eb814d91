"""The opponent: MiniCPM-V's vision side from transformers' SigLIP parts and torch's own attention, padded.

Written as upstream works: strips padded to the longest, a key-padding mask, eager attention that stores all scores,
and a resampler around `torch.nn.MultiheadAttention` on padded packages. It loads the weights of `model`'s tower and
resampler under the same names.

Shape suffixes: N slices, L patches of the longest slice, D features, C colour channels, P pixels of a patch side,
B packages, M patches of the longest package, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from model.configuration_minicpmv import MiniCPMVVisionConfig
from model.resampler import Resampler, key_positions
from model.vision import VisionEmbeddings, VisionTower


class EagerVisionTower(nn.Module):
    """SigLIP encoder of transformers over padded strips; the embeddings differ from SigLIP's and are `model`'s."""

    def __init__(self, config: MiniCPMVVisionConfig, num_layers: int) -> None:
        super().__init__()
        siglip = SiglipVisionConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=num_layers,
            num_attention_heads=config.num_attention_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_act=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
        )
        siglip._attn_implementation = "eager"
        self.embeddings = VisionEmbeddings(config)
        self.encoder = SiglipEncoder(siglip)  # type: ignore[arg-type]
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @classmethod
    def like(cls, tower: VisionTower, config: MiniCPMVVisionConfig) -> EagerVisionTower:
        """The same weights."""
        eager = cls(config, len(tower.encoder.layers)).to(tower.post_layernorm.weight)
        eager.load_state_dict(tower.state_dict())
        return eager

    def forward(self, strips: Sequence[Tensor], grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        """As `VisionTower`: per slice the features [L, D] of its patches."""
        dtype, side = self.post_layernorm.weight.dtype, self.embeddings.patch_size
        lengths = [rows * columns for rows, columns in grids]
        longest = max(lengths)
        batch_NCPW = torch.stack(
            [
                nn.functional.pad(strip[..., : length * side], (0, (longest - length) * side))
                for strip, length in zip(strips, lengths, strict=True)
            ]
        )
        ids_NL = pad_sequence([self.embeddings.position_ids(*grid) for grid in grids], batch_first=True)
        x_NLD = self.embeddings.patch_embedding(batch_NCPW.to(dtype)).squeeze(2).transpose(1, 2)
        x_NLD = x_NLD + self.embeddings.position_embedding(ids_NL)
        mask = _padding_bias(lengths, longest, dtype) if min(lengths) < longest else None
        for layer in self.encoder.layers:
            x_NLD = layer(x_NLD, mask)
        x_NLD = self.post_layernorm(x_NLD)
        return [x_NLD[i, :length] for i, length in enumerate(lengths)]


class EagerResampler(nn.Module):
    """Cross-attention by `torch.nn.MultiheadAttention` over padded packages."""

    def __init__(self, resampler: Resampler) -> None:
        super().__init__()
        self.width = resampler.hidden_size
        self.query, self.proj = resampler.query, resampler.proj
        self.kv_proj = resampler.kv_proj
        self.ln_q, self.ln_kv, self.ln_post = resampler.ln_q, resampler.ln_kv, resampler.ln_post
        self.attn = nn.MultiheadAttention(self.width, resampler.attn.num_heads).to(resampler.proj)
        self.attn.load_state_dict(resampler.attn.state_dict())

    def forward(
        self, frames: Sequence[Tensor], grids: Sequence[tuple[int, int]], packages: Sequence[Sequence[int]]
    ) -> Tensor:
        """As `Resampler`: [B, Q, D]."""
        sizes = [len(package) for package in packages]
        ticks = [tick for package in packages for tick in package]
        # torch's own class of the same weight: the product that `Linear` falls back to.
        projected = [
            frame if isinstance(self.kv_proj, nn.Identity) else nn.functional.linear(frame, self.kv_proj.weight)  # type: ignore[arg-type]
            for frame in frames
        ]
        values = [self.ln_kv(x) for x in projected]
        positions = [
            key_positions([grid], [tick], self.width).to(values[0]) for grid, tick in zip(grids, ticks, strict=True)
        ]
        keys = [value + position for value, position in zip(values, positions, strict=True)]
        k_MBD, v_MBD = (pad_sequence(_grouped(parts, sizes)) for parts in (keys, values))
        lengths = [sum(part.shape[0] for part in group) for group in _groups(values, sizes)]
        padded_BM = torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]
        q_QBD = self.ln_q(self.query)[:, None].expand(-1, len(packages), -1)
        out_QBD = self.attn(q_QBD, k_MBD, v_MBD, key_padding_mask=padded_BM, need_weights=True)[0]
        return self.ln_post(out_QBD.transpose(0, 1)) @ self.proj


def _padding_bias(lengths: Sequence[int], longest: int, dtype: torch.dtype) -> Tensor:
    """[N, 1, L, L] that shuts out padded keys, as upstream builds it."""
    padded_NL = torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]
    bias = torch.zeros(len(lengths), 1, longest, longest, dtype=dtype)
    return bias.masked_fill(padded_NL[:, None, None], torch.finfo(dtype).min)


def _groups(parts: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [list(parts[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def _grouped(parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """The frames of each package one after another."""
    return [torch.cat(group) for group in _groups(parts, sizes)]
