"""`model`: which policy is trained, and which of its parts learn how fast."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hybrid_rl.config.section import Arguments, Section


class LoraConfig(Section):
    """Train low-rank updates beside frozen weights (LoRA, arXiv 2106.09685). The reference is the same weights with the
    adapter off; the adapter alone is handed to rollout workers and saved."""

    rank: int = Field(default=16, ge=1)
    """Rank of the update of each layer."""
    alpha: float = Field(default=32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the input of the update while training. Above 0 the trainer's probabilities differ from the sampler's,
    so that `train.on_policy_tolerance` must be set."""
    parts: list[str] | None = Field(default=None, min_length=1)
    """Parts (`model.parts`) whose linear layers get an update. Unset: the decoder without its vocabulary head."""
    target_modules: list[str] | None = Field(default=None, min_length=1)
    """Last names of the linear layers, such as `q_proj`. Unset: all linear layers of the parts."""


class VideoConfig(Section):
    """Which frames of a video the policy is shown, where its processor takes videos (docs/media.md)."""

    frames_per_second: float | None = Field(default=None, gt=0)
    """Frames to choose for a second of video, as long as they fit into the packages. Unset: as the processor has it (3
    for MiniCPM-V 4.5)."""
    max_packages: int | None = Field(default=None, ge=1)
    """Packages of one video, each of which becomes as many tokens as a small picture; rounding may add one. Unset: as
    the processor has it (180)."""
    max_frames_per_package: int | None = Field(default=None, ge=1, le=6)
    """Most frames that one package may hold, so that a video shows at most so many times `max_packages`. Unset: as the
    processor has it (3)."""


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
    lora: LoraConfig | None = None
    """Train an adapter instead of the weights. Unset: all weights are trained. Needs `path`."""
    gradient_checkpointing: bool = False
    """Compute activations a second time in the backward pass instead of keeping them: less memory, a third slower."""
    backbone: str | None = None
    """How the model is called: a `module:Class` with the methods of `hybrid_rl.protocols.Backbone`. Unset: chosen by
    what the model offers."""
    video: VideoConfig | None = None
    """Which frames of videos are shown. Unset: as the processor has it."""
    packing: Literal["auto", "never"] = "auto"
    """How responses are forwarded in training and for the reference. `auto`: packed without padding, the prompt of a
    group once and each picture once an update, where the model allows it and a comparison with padded rows agrees
    (docs/models.md). `never`: padded rows."""
    thought_tags: list[str] = Field(default=["<think>", "</think>"], min_length=2, max_length=2)
    """The tags around a thought, as the chat template writes them."""

    @model_validator(mode="after")
    def _lora_has_a_base(self) -> ModelConfig:
        if self.lora is not None:
            if self.path is None:
                raise ValueError("lora needs trained weights beside it; set model.path to a checkpoint folder")
            unknown = [part for part in self.lora.parts or [] if part not in self.parts]
            if unknown:
                raise ValueError(f"lora.parts: no part '{unknown[0]}'; model.parts has {', '.join(self.parts)}")
        return self
