"""Tiny checkpoints of every release, written by hand: upstream's config fields and tensor names, random values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

D, FF, VOCAB, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 128, 64, 320, 4, 2, 32, 2
V, V_FF, V_LAYERS, PATCH, TABLE, QUERIES = 32, 48, 2, 14, 4, 4

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, rows: int, columns: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def decoder_shapes(version: float, *, tied: bool = False) -> Shapes:
    """Qwen2 has biases on q, k, v; Qwen3 norms of q and k; Llama neither."""
    shapes: Shapes = {"llm.model.embed_tokens.weight": (VOCAB, D), "llm.model.norm.weight": (D,)}
    if not tied:
        shapes["llm.lm_head.weight"] = (VOCAB, D)
    for i in range(LAYERS):
        layer = f"llm.model.layers.{i}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = (D,)
        for name, heads in (("q_proj", HEADS), ("k_proj", KV_HEADS), ("v_proj", KV_HEADS)):
            shapes |= linear(f"{layer}.self_attn.{name}", heads * HEAD_DIM, D, bias=version == 2.6)
        shapes |= linear(f"{layer}.self_attn.o_proj", D, HEADS * HEAD_DIM, bias=False)
        if version == 4.5:
            shapes |= {f"{layer}.self_attn.{name}.weight": (HEAD_DIM,) for name in ("q_norm", "k_norm")}
        for name, rows, columns in (("gate_proj", FF, D), ("up_proj", FF, D), ("down_proj", D, FF)):
            shapes |= linear(f"{layer}.mlp.{name}", rows, columns, bias=False)
    return shapes


def vision_shapes(num_layers: int = V_LAYERS) -> Shapes:
    shapes: Shapes = {
        "vpm.embeddings.patch_embedding.weight": (V, 3, PATCH, PATCH),
        "vpm.embeddings.patch_embedding.bias": (V,),
        "vpm.embeddings.position_embedding.weight": (TABLE * TABLE, V),
        **norm("vpm.post_layernorm", V),
    }
    for i in range(num_layers):
        layer = f"vpm.encoder.layers.{i}"
        shapes |= norm(f"{layer}.layer_norm1", V) | norm(f"{layer}.layer_norm2", V)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{name}", V, V)
        shapes |= linear(f"{layer}.mlp.fc1", V_FF, V) | linear(f"{layer}.mlp.fc2", V, V_FF)
    return shapes


def resampler_shapes() -> Shapes:
    return {
        "resampler.query": (QUERIES, D),
        "resampler.proj": (D, D),
        "resampler.kv_proj.weight": (D, V),
        "resampler.attn.in_proj_weight": (3 * D, D),
        "resampler.attn.in_proj_bias": (3 * D,),
        **linear("resampler.attn.out_proj", D, D),
        **norm("resampler.ln_q", D),
        **norm("resampler.ln_kv", D),
        **norm("resampler.ln_post", D),
    }


def config_of(version: float, model_type: str = "minicpmv", **changes: Any) -> dict[str, Any]:
    """A config.json in the released layout: the decoder's fields at the top level."""
    return {
        "architectures": ["MiniCPMO" if model_type == "minicpmo" else "MiniCPMV"],
        "model_type": model_type,
        "version": version,
        "hidden_size": D,
        "intermediate_size": FF,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        **({"head_dim": HEAD_DIM} if version == 4.5 else {}),
        "query_num": QUERIES,
        "drop_vision_last_layer": False,
        "vision_config": {
            "model_type": "siglip",
            "hidden_size": V,
            "intermediate_size": V_FF,
            "num_hidden_layers": V_LAYERS,
            "num_attention_heads": 2,
            "image_size": TABLE * PATCH,
            "patch_size": PATCH,
        },
        "torch_dtype": "float32",
        **changes,
    }


def values(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def all_shapes(version: float, *, tied: bool = False, vision_layers: int = V_LAYERS) -> Shapes:
    return decoder_shapes(version, tied=tied) | vision_shapes(vision_layers) | resampler_shapes()


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """A checkpoint folder with one file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def media(version: float = 4.5) -> dict[str, Any]:
    """One sample with a picture of 2 x 3 patches and a package of two frames, in a sequence of 16 tokens.

    Releases before 4.5 know no packages: there it is three pictures.
    """
    generator = torch.Generator().manual_seed(3)
    grids = [(2, 3), (1, 2), (1, 2)]
    strips = [torch.randn(3, PATCH, PATCH * rows * columns, generator=generator) for rows, columns in grids]
    return {
        "input_ids": torch.arange(16)[None],
        "pixel_values": [strips],
        "tgt_sizes": [torch.tensor(grids)],
        "image_bound": [torch.tensor([[2, 6], [8, 12]] if version >= 4.5 else [[1, 5], [6, 10], [11, 15]])],
        "temporal_ids": [[[-1], [4, 7]]] if version >= 4.5 else None,
    }
