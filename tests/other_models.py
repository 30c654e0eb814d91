"""Tiny checkpoint folders with random weights of models that this project did not write, as others would save them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hybrid_rl.quiet import quiet_transformers

_TEMPLATE = r"""
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.role == 'assistant' %}
{{- '<think>\n' + (message.reasoning_content or '') + '\n</think>\n\n' + message.content }}
{%- elif message.content is string %}
{{- message.content }}
{%- else %}
{%- for part in message.content %}
{{- 'IMAGE' if part.type == 'image' else part.text }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n<think>\n' + ('\n</think>\n\n' if enable_thinking is false else '') }}
{%- endif %}"""

_DECODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def _tokenizer(image: str) -> Any:
    from model.byte_tokenizer import byte_tokenizer

    tokenizer = byte_tokenizer(["user", "assistant"])
    tokenizer.chat_template = _TEMPLATE.replace("IMAGE", image)
    return tokenizer


def _save(folder: Path, model_class: Any, config: Any, tokenizer: Any, image_processor: Any = None) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        for name, parameter in model.named_parameters():
            # Larger than usual, so that what a model sees and remembers shows in its probabilities.
            if parameter.ndim >= 2 and "norm" not in name:
                torch.nn.init.normal_(parameter, std=0.15)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if image_processor is not None:
        image_processor.save_pretrained(folder)


def _ids(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def qwen3(folder: Path) -> None:
    """A causal language model of text."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = _tokenizer("")
    config = Qwen3Config(**_DECODER, head_dim=16, vocab_size=len(tokenizer), **_ids(tokenizer))
    _save(folder, Qwen3ForCausalLM, config, tokenizer)


def llama(folder: Path) -> None:
    """Another causal language model of text, with a head of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer("")
    config = LlamaConfig(**_DECODER, vocab_size=len(tokenizer), tie_word_embeddings=False, **_ids(tokenizer))
    _save(folder, LlamaForCausalLM, config, tokenizer)


def sliding(folder: Path) -> None:
    """A causal language model whose tokens see only the last few."""
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = _tokenizer("")
    config = MistralConfig(**_DECODER, vocab_size=len(tokenizer), sliding_window=8, **_ids(tokenizer))
    _save(folder, MistralForCausalLM, config, tokenizer)


def capped(folder: Path) -> None:
    """A causal language model that caps its scores and logits."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tokenizer = _tokenizer("")
    config = Gemma2Config(**_DECODER, head_dim=16, vocab_size=len(tokenizer), **_ids(tokenizer))
    _save(folder, Gemma2ForCausalLM, config, tokenizer)


def qwen3_5_text(folder: Path) -> None:
    """A causal language model whose layers are linear attention but for every second one."""
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

    tokenizer = _tokenizer("")
    _save(folder, Qwen3_5ForCausalLM, Qwen3_5TextConfig(**_hybrid(tokenizer)), tokenizer)


def _hybrid(tokenizer: Any) -> dict[str, Any]:
    return {
        **_DECODER,
        **_ids(tokenizer),
        "vocab_size": len(tokenizer),
        "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    }


def _qwen_vl(folder: Path, config_class: Any, model_class: Any, vision: dict[str, Any], patch_size: int) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = _tokenizer("<|vision_start|><|image_pad|><|vision_end|>")
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    text = {**_DECODER, **_ids(tokenizer), "vocab_size": len(tokenizer), "rope_parameters": rope, "head_dim": 16}
    config = config_class(
        text_config=text,
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64, **vision},
        **{key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()},
    )
    side = 2 * patch_size
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=patch_size, size={"shortest_edge": side**2, "longest_edge": 8 * side**2}
    )
    _save(folder, model_class, config, tokenizer, image_processor)


def qwen2_5_vl(folder: Path) -> None:
    """Images with positions in three axes."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {"intermediate_size": 48, "window_size": 56, "fullatt_block_indexes": [1], "patch_size": 14}
    _qwen_vl(folder, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision, 14)


def qwen3_vl(folder: Path) -> None:
    """Images with positions in three axes and features that enter several layers."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = {"intermediate_size": 48, "patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    _qwen_vl(folder, Qwen3VLConfig, Qwen3VLForConditionalGeneration, vision, 16)


def minicpmv4_6(folder: Path) -> None:
    """Images in slices before a decoder with linear attention."""
    from transformers import MiniCPMV4_6Config, MiniCPMV4_6ForConditionalGeneration
    from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

    tokenizer = _tokenizer("<|image_pad|>")
    config = MiniCPMV4_6Config(
        text_config={"model_type": "qwen3_5_text", **_hybrid(tokenizer)},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 14,
            "image_size": 112,
        },
        insert_layer_id=0,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
    )
    image_processor = MiniCPMV4_6ImageProcessorPil(scale_resolution=112, max_slice_nums=2)
    _save(folder, MiniCPMV4_6ForConditionalGeneration, config, tokenizer, image_processor)
    # The released tokenizer names its markers.
    markers = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    for name in ("image", "slice", "image_id"):
        markers |= {f"{name}_start_token": f"<{name}>", f"{name}_end_token": f"</{name}>"}
    path = folder / "tokenizer_config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "extra_special_tokens": markers}))


MODELS: dict[str, Callable[[Path], None]] = {
    function.__name__: function for function in (qwen3, qwen3_5_text, qwen2_5_vl, qwen3_vl, minicpmv4_6)
}
TEXT_ONLY: dict[str, Callable[[Path], None]] = {function.__name__: function for function in (llama, sliding, capped)}
"""Further models of text, for what they ask of attention."""
WITH_IMAGES = ("qwen2_5_vl", "qwen3_vl", "minicpmv4_6")


def save(name: str, folder: Path) -> Path:
    """Write the folder of a model, once."""
    quiet_transformers()
    if not folder.exists():
        (MODELS | TEXT_ONLY)[name](folder)
    return folder
