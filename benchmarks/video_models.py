"""Two video models with random weights and decoders of one size, and the same clip packed for each.

All widths are those of the released models (MiniCPM-V 4.5 8B, Qwen2.5-VL 7B) divided by one number, depths by another,
so that the shares of encoder and decoder stay about as they are. Decoders are of exactly one shape.

Shape suffixes: F frames, C colour channels, H and W pixels, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from model import MiniCPMVConfig, MiniCPMVForConditionalGeneration, MiniCPMVImageProcessor, MiniCPMVVisionConfig

_VOCABULARY = 4096
_PLACEHOLDER, _VISION_START, _VISION_END, _IMAGE = 1, 2, 3, 4
_FIRST_WORD = 16
_PATCH, _QUESTION_TOKENS = 14, 32
_QUERIES = 64
_TICKS_PER_SECOND = 10
_HEAD_DIM = 64


@dataclass(frozen=True, slots=True)
class Sizes:
    """Shape of both models; `width` features in the decoder, a multiple of 128."""

    width: int = 512
    layers: int = 8
    vision_layers: int = 7
    """Of MiniCPM-V; Qwen2.5-VL has 32 where that has 27."""

    @property
    def decoder(self) -> dict[str, Any]:
        """Decoder fields that both configurations share."""
        heads = self.width // _HEAD_DIM
        return {
            "vocab_size": _VOCABULARY,
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 4),
            "max_position_embeddings": 2**18,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": 0,
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model and everything its `generate` needs for one clip."""

    model: Any
    inputs: dict[str, Any]
    visual_tokens: int


def clip(frames: int, side: int) -> Tensor:
    """[F, C, H, W] of uint8: a gradient that moves."""
    line = torch.arange(side)
    plane_HW = line[:, None] + line[None]
    return torch.stack([(plane_HW + 3 * f).remainder(256).byte().expand(3, -1, -1) for f in range(frames)])


def minicpmv(video_FCHW: Tensor, sizes: Sizes, frames_per_package: int) -> Prepared:
    """MiniCPM-V 4.5: `frames_per_package` adjacent frames become 64 tokens."""
    heads = max(1, sizes.width // 256)
    vision = MiniCPMVVisionConfig(
        hidden_size=72 * heads,
        intermediate_size=269 * heads,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=heads,
        patch_size=_PATCH,
    )
    torch.manual_seed(0)
    config = MiniCPMVConfig(
        **sizes.decoder,
        head_dim=_HEAD_DIM,
        image_token_id=_PLACEHOLDER,
        query_num=_QUERIES,
        drop_vision_last_layer=False,
        vision_config=vision,
        dtype="float32",
    )
    config._attn_implementation = "sdpa"
    model = MiniCPMVForConditionalGeneration(config).eval()
    packer = MiniCPMVImageProcessor(patch_size=_PATCH)
    strips = [packer.pack((frame.float() / 255 - 0.5) / 0.5) for frame in video_FCHW]
    grid = (video_FCHW.shape[2] // _PATCH, video_FCHW.shape[3] // _PATCH)
    ticks = list(range(len(strips)))
    packages = [ticks[i : i + frames_per_package] for i in range(0, len(ticks), frames_per_package)]
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    for _ in packages:
        spans.append((len(ids) + 1, len(ids) + 1 + _QUERIES))
        ids += [_VISION_START, *[_PLACEHOLDER] * _QUERIES, _VISION_END]
    inputs = {
        "input_ids": torch.tensor([ids + _question()]),
        "pixel_values": [strips],
        "tgt_sizes": [torch.tensor([grid] * len(strips))],
        "image_bound": [torch.tensor(spans)],
        "temporal_ids": [packages],
    }
    return Prepared(model, inputs, _QUERIES * len(packages))


def qwen(video_FCHW: Tensor, sizes: Sizes) -> Prepared:
    """Qwen2.5-VL (arXiv 2502.13923): two frames share a patch, four patches become one token."""
    heads = max(1, sizes.width // 256)
    depth = round(sizes.vision_layers * 32 / 27)
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            **sizes.decoder,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        },
        vision_config={
            "depth": depth,
            "hidden_size": 80 * heads,
            "intermediate_size": 214 * heads,
            "num_heads": heads,
            "out_hidden_size": sizes.width,
            # One block in eight sees a whole frame, the others windows of 112 pixels.
            "fullatt_block_indexes": list(range(7, depth, 8)) or [depth - 1],
        },
        image_token_id=_IMAGE,
        video_token_id=_PLACEHOLDER,
        vision_start_token_id=_VISION_START,
        vision_end_token_id=_VISION_END,
    )
    config._attn_implementation = "sdpa"
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    patches, grid = pack_for_qwen(video_FCHW)
    tokens = int(grid.prod()) // 4
    ids = torch.tensor([[_VISION_START, *[_PLACEHOLDER] * tokens, _VISION_END, *_question()]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos": patches,
        "video_grid_thw": grid,
        "second_per_grid_ts": torch.tensor([2 / _TICKS_PER_SECOND]),
        "mm_token_type_ids": (ids == _PLACEHOLDER).int() * 2,
    }
    return Prepared(model, inputs, tokens)


def pack_for_qwen(video_FCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Patches of 2 frames x 14 x 14 as rows, the four that merge into one token next to each other, and the grid.

    The in-tree video processor needs torchvision. An odd last frame is repeated, as that one does.

    Returns:
        [patches, C * 2 * 14 * 14] float32, and (time, rows, columns) in patches, [1, 3].
    """
    if len(video_FCHW) % 2:
        video_FCHW = torch.cat([video_FCHW, video_FCHW[-1:]])
    frames, channels, height, width = video_FCHW.shape
    time, rows, columns = frames // 2, height // _PATCH, width // _PATCH
    packed = torch.empty(time, rows * columns, channels * 2 * _PATCH**2)
    # Pair by pair: a float copy of the whole clip would stand in the peak of memory.
    for pair_FCHW, place in zip(video_FCHW.split(2), packed, strict=True):
        pixels = (pair_FCHW.float() / 255 - 0.5) / 0.5
        split = pixels.reshape(2, channels, rows // 2, 2, _PATCH, columns // 2, 2, _PATCH)
        place.copy_(split.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(place.shape))
    return packed.flatten(0, 1), torch.tensor([[time, rows, columns]])


def _question() -> list[int]:
    """Some words after the video."""
    return list(range(_FIRST_WORD, _FIRST_WORD + _QUESTION_TOKENS))
