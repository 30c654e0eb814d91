"""The policy of `benchmarks.grpo_step` as a checkpoint folder, so that both sides begin with the same weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.grpo_cases import Sizes

_PAD, _STOP, _UNKNOWN = 0, 1, 2
IMAGE, VIDEO, VISION_START, VISION_END = 4, 5, 6, 7
_TEMPLATE = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ '<vision> <image> </vision> ' if part.type == 'image' else part.text }}"
    "{% endfor %}{% endif %}{% endfor %}"
)


def tokenizer(sizes: Sizes, *, stop: int = _STOP) -> Any:
    """Every word is a token.

    Args:
        stop: id of the end of a turn. Beyond the vocabulary it is never sampled, so that lengths can be forced.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {"<pad>": _PAD, "<unk>": _UNKNOWN, "<image>": IMAGE, "<video>": VIDEO}
    special |= {"<vision>": VISION_START, "</vision>": VISION_END, "<stop>": stop}
    taken = set(special.values())
    words = {f"w{i}": i for i in range(sizes.vocabulary) if i not in taken}
    plain = Tokenizer(models.WordLevel({**special, **words}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"image_token": "<image>", "video_token": "<video>", "vision_start": "<vision>", "vision_end": "</vision>"}
    found = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<pad>",
        eos_token="<stop>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens=named,  # split off the words beside them, as the images' places are written without blanks
    )
    found.chat_template = _TEMPLATE
    return found


def write_folder(folder: Path, sizes: Sizes, *, images: bool) -> None:
    """Random weights in float32, the same every time."""
    import torch

    if not torch.cuda.is_available():
        # Else DeepSpeed, where it is installed, says on standard output that it found no accelerator.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    torch.manual_seed(0)
    model = _with_images(sizes) if images else _text(sizes)
    model.save_pretrained(folder)
    tokenizer(sizes, stop=sizes.vocabulary).save_pretrained(folder)
    if images:
        image_processor(sizes).save_pretrained(folder)


def image_processor(sizes: Sizes) -> Any:
    """Of Qwen2.5-VL, on Pillow; images keep their size."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    area = sizes.image_side**2
    return Qwen2VLImageProcessorPil(patch_size=14, size={"shortest_edge": 28 * 28, "longest_edge": 4 * area})


def _decoder(sizes: Sizes) -> dict[str, Any]:
    return {
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.hidden_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "intermediate_size": sizes.mlp_size,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "pad_token_id": _PAD,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _text(sizes: Sizes) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_decoder(sizes)))


def _with_images(sizes: Sizes) -> Any:
    """Qwen2.5-VL, which both sides train natively."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    axis = sizes.head_dim // 2
    sections = [axis - 2 * (3 * axis // 8), 3 * axis // 8, 3 * axis // 8]
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    config = Qwen2_5_VLConfig(
        text_config={**_decoder(sizes), "rope_parameters": rope},
        vision_config={
            "depth": sizes.vision_layers,
            "hidden_size": sizes.vision_size,
            "num_heads": max(1, sizes.vision_size // 64),
            "intermediate_size": 3 * sizes.vision_size,
            "out_hidden_size": sizes.hidden_size,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [sizes.vision_layers - 1],
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)
