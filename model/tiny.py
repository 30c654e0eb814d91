"""A MiniCPM-V small enough to train on a laptop: the real architecture, few and narrow layers, a byte tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .byte_tokenizer import byte_tokenizer
from .configuration_minicpmv import MiniCPMVConfig, MiniCPMVVisionConfig
from .image_processing import MiniCPMVImageProcessor
from .minicpmv import MiniCPMVForConditionalGeneration
from .processor import MiniCPMVProcessor

_WORDS = ("user", "assistant", "system", "\n\n", "Read", "Add", " the", " digits")
"""Whole-word tokens: what a small model's prompts are made of, and no digit, so that answers are spelled out."""


def tiny_minicpmv(
    seed: int,
    *,
    hidden_size: int = 128,
    num_hidden_layers: int = 4,
    num_attention_heads: int = 4,
    num_key_value_heads: int = 2,
    head_dim: int = 32,
    intermediate_size: int = 384,
    vision_hidden_size: int = 96,
    vision_num_hidden_layers: int = 2,
    vision_num_attention_heads: int = 4,
    vision_intermediate_size: int = 256,
    patch_size: int = 14,
    vision_image_size: int = 224,
    query_num: int = 12,
    max_slice_nums: int = 1,
    scale_resolution: int = 56,
    max_position_embeddings: int = 1024,
    initializer_range: float = 0.06,
    tie_word_embeddings: bool = True,
    words: Sequence[str] = _WORDS,
) -> tuple[MiniCPMVForConditionalGeneration, MiniCPMVProcessor]:
    """Build a model with random float32 weights and the processor that goes with it.

    The same seed gives the same weights, and torch's global random state is left as it was. Sizes are in features,
    `patch_size`, `vision_image_size` and `scale_resolution` in pixels; `words` become tokens beside the bytes.
    About one million parameters by default.

    Raises:
        ValueError: `hidden_size` is not a multiple of 128, the width of a resampler head.
    """
    processor = _processor(query_num, max_slice_nums, scale_resolution, patch_size, words)
    tokens = processor.tokenizer
    config = MiniCPMVConfig(
        vocab_size=len(tokens),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        num_key_value_heads=num_key_value_heads,
        head_dim=head_dim,
        max_position_embeddings=max_position_embeddings,
        initializer_range=initializer_range,
        tie_word_embeddings=tie_word_embeddings,
        **{name: getattr(tokens, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        image_token_id=processor.image_token_id,
        query_num=query_num,
        drop_vision_last_layer=False,
        slice_config={"max_slice_nums": max_slice_nums, "scale_resolution": scale_resolution},
        vision_config=MiniCPMVVisionConfig(
            hidden_size=vision_hidden_size,
            intermediate_size=vision_intermediate_size,
            num_hidden_layers=vision_num_hidden_layers,
            num_attention_heads=vision_num_attention_heads,
            image_size=vision_image_size,
            patch_size=patch_size,
        ),
        dtype="float32",
    )
    strip_columns = max(1, round(scale_resolution * _STRIP_ASPECT**0.5 / patch_size))
    return _seeded(config, seed, strip_columns), processor


def _processor(
    query_num: int, max_slice_nums: int, scale_resolution: int, patch_size: int, words: Sequence[str]
) -> MiniCPMVProcessor:
    image_processor = MiniCPMVImageProcessor(
        max_slice_nums=max_slice_nums,
        scale_resolution=scale_resolution,
        patch_size=patch_size,
        image_feature_size=query_num,
    )
    return MiniCPMVProcessor(image_processor, byte_tokenizer(words))


def _seeded(config: MiniCPMVConfig, seed: int, strip_columns: int) -> MiniCPMVForConditionalGeneration:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MiniCPMVForConditionalGeneration(config).eval()
        _make_places_distinct(model)
        _spread_queries(model, strip_columns)
    return model


@torch.no_grad()
def _make_places_distinct(model: MiniCPMVForConditionalGeneration) -> None:
    """Start the vision tower with positions as strong as the patches, and layers that keep the size of their input.

    With the released scale of positions, a tenth of a patch's, a tower trained from nothing on a few ten thousand
    pictures sees what is in a picture but not where, and does not learn to read.
    """
    model.vpm.embeddings.position_embedding.weight.normal_()
    for module in model.vpm.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.normal_(std=module.in_features**-0.5)


_STRIP_ASPECT = 5
"""Width over height of the long, low pictures over which the queries start spread."""


@torch.no_grad()
def _spread_queries(model: MiniCPMVForConditionalGeneration, strip_columns: int) -> None:
    """Start the resampler with each query looking at a place of its own, along the middle of a strip.

    From random queries that all look everywhere, telling places apart takes most of a small training. Query and key
    projections start as the same diagonal, which weighs the fast column frequencies most: a query whose
    value is the position code of a column then matches the keys near that column.
    """
    resampler = model.resampler
    num_queries, width = resampler.query.shape
    num_frequencies = width // 4  # of one axis, each with a sine and a cosine
    omega = 1.0 / 10000 ** (torch.arange(num_frequencies) / num_frequencies)

    def code(places: torch.Tensor) -> torch.Tensor:
        angles = places[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    columns = (torch.arange(num_queries) + 0.5) * strip_columns / num_queries - 0.5
    middle_row = torch.full((num_queries,), 0.5)
    resampler.query.copy_(torch.cat([code(columns), code(middle_row)], dim=-1))
    # Content is scaled down at first, so that places and not strokes decide where a query looks.
    resampler.ln_kv.weight.fill_(0.3)
    fast = max(1, num_frequencies // 5)
    gain = torch.full((width,), 0.3)
    gain[:fast] = gain[num_frequencies : num_frequencies + fast] = 2.8
    for block in (slice(0, width), slice(width, 2 * width)):
        weight = resampler.attn.in_proj_weight[block]
        weight.normal_(std=0.02)
        weight.add_(torch.diag(gain))
