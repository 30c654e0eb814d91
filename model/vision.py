"""The vision tower `vpm`: a SigLIP encoder (arXiv 2303.15343) on pictures of any shape, as in NaViT (arXiv 2307.06304).

Slices of different shapes run together without padding: their patches lie on one token axis (see ragged.py). Many
slices are encoded in several passes, so that memory without gradients does not grow with the length of a video.

Shape suffixes: T patches of all slices together, D features, N slices of one length, L patches of a slice,
H heads, E features per head, C colour channels, P pixels of a patch side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_minicpmv import MiniCPMVVisionConfig
from .linear import Linear
from .ragged import RaggedLayout, tokens_per_pass


@lru_cache(maxsize=1024)
def position_buckets(num_patches: int, num_buckets: int) -> Tensor:
    """Bucket of the learned position table for each of `num_patches` along one axis, [num_patches] long.

    Patch i lies at the fraction i / num_patches of its axis and takes the bucket that covers this fraction. Many
    fractions fall exactly on a boundary, and there float32 rounding decides: the released weights were trained with
    the values of `torch.arange` in float32 with a float32 step, so both are made the same way here. They stay on the
    CPU, because another device may round differently.
    """
    step = (1 / torch.tensor(num_patches, device="cpu")).item()
    fractions = torch.arange(0, 1 - 1e-6, step, dtype=torch.float32, device="cpu")
    boundaries = torch.arange(1 / num_buckets, 1.0, 1 / num_buckets, dtype=torch.float32, device="cpu")
    return torch.bucketize(fractions, boundaries, right=True)


class VisionEmbeddings(nn.Module):
    """Patch projection plus learned position, the position table stretched over the shape of each slice."""

    def __init__(self, config: MiniCPMVVisionConfig) -> None:
        super().__init__()
        self.buckets_per_axis = config.positions_per_axis
        self.patch_size = config.patch_size
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(self.buckets_per_axis**2, config.hidden_size)

    def position_ids(self, rows: int, columns: int) -> Tensor:
        """Row of the position table for every patch of a rows x columns slice, row-major, [rows * columns] long."""
        row = position_buckets(rows, self.buckets_per_axis)
        column = position_buckets(columns, self.buckets_per_axis)
        return (row[:, None] * self.buckets_per_axis + column[None, :]).flatten()

    def forward(self, strip_CPW: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """Embed patches that lie side by side in one strip.

        Args:
            strip_CPW: [C, P, P * T], patch t in columns P*t to P*t + P - 1.
            grids: (rows, columns) of each slice, T patches in total.

        Returns:
            [T, D].
        """
        weight = self.patch_embedding.weight
        x_DT = self.patch_embedding(strip_CPW.to(weight.dtype)[None])[0, :, 0]
        ids_T = torch.cat([self.position_ids(rows, columns) for rows, columns in grids])
        return x_DT.T + self.position_embedding(ids_T.to(weight.device))


class VisionAttention(nn.Module):
    """Bidirectional multi-head attention of every slice with itself."""

    def __init__(self, config: MiniCPMVVisionConfig) -> None:
        super().__init__()
        # Read at every call: `set_attn_implementation` changes the config of a built model.
        self.config = config
        self.num_heads = config.num_attention_heads
        self.scaling = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.is_causal = False
        self.q_proj = Linear(config.hidden_size, config.hidden_size)
        self.k_proj = Linear(config.hidden_size, config.hidden_size)
        self.v_proj = Linear(config.hidden_size, config.hidden_size)
        self.out_proj = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_TD: Tensor, layout: RaggedLayout) -> Tensor:
        """[T, D] to [T, D]."""
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        q_TD, k_TD, v_TD = self.q_proj(x_TD), self.k_proj(x_TD), self.v_proj(x_TD)
        mixed: list[Tensor] = []
        for block in layout.blocks:
            out_NLHE, _ = attend(
                self,
                block.view(q_TD, self.num_heads),
                block.view(k_TD, self.num_heads),
                block.view(v_TD, self.num_heads),
                attention_mask=None,
                scaling=self.scaling,
                dropout=self.config.attention_dropout if self.training else 0.0,
                is_causal=False,
            )
            mixed.append(out_NLHE.reshape(block.num_sequences * block.length, -1))
        return self.out_proj(torch.cat(mixed))


def eager_attention(
    module: nn.Module,
    q_NHLE: Tensor,
    k_NHLE: Tensor,
    v_NHLE: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out, with the softmax in float32. Returns [N, L, H, E] and the weights [N, H, L, L]."""
    weights_NHLL = (q_NHLE @ k_NHLE.transpose(2, 3) * scaling).softmax(-1, dtype=torch.float32).to(q_NHLE.dtype)
    weights_NHLL = nn.functional.dropout(weights_NHLL, p=dropout, training=module.training)
    return (weights_NHLL @ v_NHLE).transpose(1, 2).contiguous(), weights_NHLL


class VisionMLP(nn.Module):
    """Two linear maps with the tanh form of GELU between them."""

    def __init__(self, config: MiniCPMVVisionConfig) -> None:
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_TD: Tensor) -> Tensor:
        """[T, D] to [T, D]."""
        return self.fc2(self.activation(self.fc1(x_TD)))


class VisionEncoderLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block."""

    def __init__(self, config: MiniCPMVVisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMLP(config)

    def forward(self, x_TD: Tensor, layout: RaggedLayout) -> Tensor:
        """[T, D] to [T, D]."""
        x_TD = x_TD + self.self_attn(self.layer_norm1(x_TD), layout)
        return x_TD + self.mlp(self.layer_norm2(x_TD))


class VisionEncoder(nn.Module):
    """The stack of blocks; a module of its own because checkpoints name it."""

    def __init__(self, config: MiniCPMVVisionConfig, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([VisionEncoderLayer(config) for _ in range(num_layers)])

    def forward(self, x_TD: Tensor, layout: RaggedLayout) -> Tensor:
        """[T, D] to [T, D]."""
        for layer in self.layers:
            x_TD = layer(x_TD, layout)
        return x_TD


class VisionTower(nn.Module):
    """Encode slices of any shapes in one pass.

    Args:
        config: the encoder's shape.
        num_layers: blocks to build; released 4.5 builds all of `config.num_hidden_layers`.
    """

    def __init__(self, config: MiniCPMVVisionConfig, num_layers: int) -> None:
        super().__init__()
        self.widest = max(config.hidden_size, config.intermediate_size)
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionEncoder(config, num_layers)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, strips: Sequence[Tensor], grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Features of every patch.

        Args:
            strips: per slice [C, P, P * L], patches side by side in row-major order. Columns past P * L are ignored,
                so strips that were padded to a common width are fine.
            grids: per slice (rows, columns) in patches, rows * columns = L.

        Returns:
            Per slice [L, D], in the order given.

        Raises:
            ValueError: no slice, or a strip too narrow for its grid.
        """
        if not strips or len(strips) != len(grids):
            raise ValueError(f"Expected one grid per slice and at least one slice, got {len(strips)} and {len(grids)}.")
        patch_size = self.embeddings.patch_size
        lengths = [rows * columns for rows, columns in grids]
        for strip_CPW, length in zip(strips, lengths, strict=True):
            if strip_CPW.shape[-1] < length * patch_size:
                raise ValueError(f"A strip {strip_CPW.shape[-1]} pixels wide cannot hold {length} patches.")
        device = self.post_layernorm.weight.device
        layout = RaggedLayout.of(lengths)
        parts: list[Tensor] = []
        for run in layout.passes(tokens_per_pass(self.widest, device)):
            strip_CPW = torch.cat([strips[i][..., : lengths[i] * patch_size].to(device) for i in run.order], dim=-1)
            x_TD = self.embeddings(strip_CPW, [grids[i] for i in run.order])
            parts += self.post_layernorm(self.encoder(x_TD, run)).split(run.lengths)
        return layout.restore(parts)
