"""`model`: which policy is trained, and which of its parts learn how fast."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hybrid_rl.config.section import Arguments, Section


class ModelConfig(Section):
    """Which policy is trained."""

    path: str | None = None
    """Folder of a checkpoint (safetensors). With it there is no warm-up. Unset: `builder` makes the policy."""
    builder: str = "model.tiny:tiny_minicpmv"
    """Makes a policy with random weights: called as `builder(seed, **args)`, returns (model, processor)."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of `builder`, such as its sizes."""
    modules: list[str] = Field(default=["model"])
    """Modules imported before loading; they register their classes with the Auto classes of transformers."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; otherwise a torch device such as `cpu` or `cuda:0`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 on a GPU and float32 on a CPU."""
    parts: dict[str, list[str]] = Field(
        default={
            "vision_tower": ["vpm."],
            "resampler": ["resampler."],
            "embeddings": ["llm.model.embed_tokens.", "llm.lm_head."],
            "decoder": ["llm."],
        }
    )
    """Names for groups of parameters by prefix; the longest matching prefix wins. See `learning_rate_scale`."""
    thought_tags: list[str] = Field(default=["<think>", "</think>"], min_length=2, max_length=2)
    """The tags around a thought, as the chat template writes them."""
