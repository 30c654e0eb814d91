"""Configuration of MiniCPM-V: the released flat layout, language-model fields at the top level.

Field names and defaults are those of the released config.json files, so they load unchanged.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

# The family changes its decoder from version to version and says so nowhere but in `version`.
_DECODERS: dict[str, type[PreTrainedConfig]] = {"2.6": Qwen2Config, "4.0": LlamaConfig, "4.5": Qwen3Config}

_FIRST_QWEN3 = _FIRST_WITH_TIME = 4.5

_HEAD_WIDTH = 128
"""Width of one resampler head in every released model; the number of heads follows from the hidden size."""

_RELEASED_VOCAB_SIZE, _RELEASED_PLACEHOLDER_ID = 151748, 128244
"""The 4.5 vocabulary and its `<unk>`, which released config files do not record."""


class MiniCPMVVisionConfig(PreTrainedConfig):
    """Shape of the SigLIP NaViT encoder. Sizes in features, `image_size` and `patch_size` in pixels."""

    # The released files say so, and files written here keep saying it.
    model_type: ClassVar[str] = "siglip"
    base_config_key: ClassVar[str] = "vision_config"

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 980
    patch_size: int = 14
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0

    @property
    def positions_per_axis(self) -> int:
        """Rows and columns of the learned table of positions."""
        return self.image_size // self.patch_size


class MiniCPMVConfig(Qwen3Config):
    """Everything needed to build MiniCPM-V.

    The fields of the decoder are inherited (4.5 is a Qwen3); `decoder_config` hands them to the class that the
    version names.
    """

    model_type: ClassVar[str] = "minicpmv"
    sub_configs: ClassVar[dict[str, type[PreTrainedConfig]]] = {"vision_config": MiniCPMVVisionConfig}
    # Sharding plans name the decoder's modules; here those lie under `llm.` and bring their own plans.
    base_model_tp_plan: ClassVar[dict[str, Any]] = {}
    base_model_pp_plan: ClassVar[dict[str, Any]] = {}

    version: float | str = 4.5
    """Release; selects the decoder class."""
    head_dim: int = 0
    """Features of one attention head of the decoder; 0 means what the decoder's class makes of a file without."""
    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    """The encoder; a dict is turned into `MiniCPMVVisionConfig`, None means the released 400M encoder."""
    query_num: int = 64
    """Tokens that the resampler makes of one package (one slice of an image, or several frames of a video)."""
    image_size: int = 448
    """Kept for compatibility; no computation reads it."""
    patch_size: int | None = None
    """Pixels; None means the encoder's."""
    drop_vision_last_layer: bool = True
    """Leave out the encoder's last layer. Released 4.5 files say false, and absent means true."""
    batch_vision_input: bool = True
    batch_3d_resampler: bool = True
    use_image_id: bool = True
    vision_batch_size: int = 16
    """Kept for compatibility; slices are never padded here, so their number per call does not matter."""
    slice_mode: bool = True
    slice_config: dict[str, Any] | None = None
    """max_slice_nums, patch_size, scale_resolution as the image processor should use them."""
    image_token_id: int | None = None
    """Id of the placeholder token; None where the file does not say and the vocabulary is not the released one."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Config from the content of a config.json.

        Raises:
            ValueError: a file without a version (the oldest releases have none, and other towers and prompts), or of
                a version that is not known here.
        """
        _decoder_class(config_dict.get("version"))
        given = {key: value for key, value in config_dict.items() if key != "head_dim" or value is not None}
        return super().from_dict(given, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.vision_config, PreTrainedConfig):
            given = {key: value for key, value in (self.vision_config or {}).items() if key != "model_type"}
            self.vision_config = MiniCPMVVisionConfig(**given)
        if self.patch_size is None:
            self.patch_size = self.vision_config.patch_size
        sizes = {"max_slice_nums": 1, "patch_size": self.patch_size, "scale_resolution": 448}
        self.slice_config = sizes | (self.slice_config or {})
        if self.image_token_id is None and self.vocab_size == _RELEASED_VOCAB_SIZE:
            self.image_token_id = _RELEASED_PLACEHOLDER_ID
        if not self.head_dim:
            # Qwen3 has a width of its own, earlier decoders share out the hidden size; their files say nothing.
            own = float(self.version) >= _FIRST_QWEN3
            self.head_dim = Qwen3Config.head_dim if own else self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)

    @property
    def knows_time(self) -> bool:
        """The resampler was trained on frames with their time, several in a package."""
        return float(self.version) >= _FIRST_WITH_TIME

    @property
    def resampler_heads(self) -> int:
        """Attention heads of the resampler.

        Raises:
            ValueError: the hidden size is not a multiple of the head width.
        """
        if self.hidden_size % _HEAD_WIDTH:
            raise ValueError(f"The resampler needs a hidden size that is a multiple of 128, got {self.hidden_size}.")
        return self.hidden_size // _HEAD_WIDTH

    @property
    def num_vision_layers(self) -> int:
        """Encoder layers that are really built."""
        layers: int = self.vision_config.num_hidden_layers  # type: ignore[union-attr]
        return layers - 1 if self.drop_vision_last_layer else layers

    def decoder_config(self) -> PreTrainedConfig:
        """Configuration of the language model alone, of the class that `version` calls for.

        Raises:
            ValueError: a version whose decoder is not known here.
        """
        decoder = _decoder_class(self.version)
        names = {field.name for field in fields(decoder)}
        # Sizes and names of the multimodal model would be wrong on the decoder alone, and a type of its own would give
        # a model built from the config, not loaded, a decoder of another type than its vision tower.
        names -= {"architectures", "transformers_version", "dtype"}
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return decoder(**values)


def _decoder_class(version: float | str | None) -> type[PreTrainedConfig]:
    """Config class of the decoder of a release.

    Raises:
        ValueError: no or an unknown version.
    """
    try:
        return _DECODERS[str(float(version))]  # type: ignore[arg-type]  # None is no number either
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"MiniCPM-V version {version} is not supported, known are {', '.join(_DECODERS)}; "
            "the version is a field of config.json."
        ) from None
