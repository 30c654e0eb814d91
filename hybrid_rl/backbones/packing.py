"""Whether a policy's responses can be forwarded packed: prompts once, pictures once, no padding (`pack`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from hybrid_rl.backbones.pack import Pack
from hybrid_rl.templates import PromptInputs


@runtime_checkable
class PackingBackbone(Protocol):
    """What a backbone offers beside `hybrid_rl.protocols.Backbone` to be packed; the built-in ones do.

    A picture is what is encoded by itself: an image or, for some models, a slice of one, or some frames of a video.
    Shapes: M = response tokens, D = width.
    """

    def split_media(self, model: Any, media: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The media of a prompt, picture by picture, without what says where in the prompt they stand."""
        ...

    def encode_media(self, model: Any, pictures: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Features of each picture; those of several are joined by `hybrid_rl.backbones.features.join`."""
        ...

    def packed_states(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        features: Sequence[Any],
        responses: Sequence[Sequence[int]],
        pack: Pack,
    ) -> Tensor:
        """What the vocabulary head reads to predict each response token, the responses one after the other [M, D].

        Args:
            features: of the pictures of each prompt; None for a prompt without any.
        """
        ...


@dataclass(slots=True)
class Packing:
    """Attributes:
    backbone: of the policy; None where it cannot be packed, or should not.
    trusted: by whether there are pictures, what the comparison with padded rows found; filled as batches come.
    notices: what the user should be told, once.
    """

    backbone: PackingBackbone | None
    trusted: dict[bool, bool] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: Any, backbone: Any, asked: Literal["auto", "off"], *, trainable: bool) -> Packing:
        """Packing of a policy, with a notice where it is asked for and cannot be.

        Args:
            trainable: whether the model is trained, and may drop attention weights at random.
        """
        if asked == "off":
            return cls(None)
        reason = _obstacle(model, backbone, trainable)
        if reason is not None:
            return cls(None, notices=[f"responses are padded, not packed, in the update: {reason}"])
        return cls(backbone)

    def take_notices(self) -> list[str]:
        """What has not been told yet."""
        notices, self.notices = self.notices, []
        return notices


def _obstacle(model: Any, backbone: Any, trainable: bool) -> str | None:
    if not isinstance(backbone, PackingBackbone):
        return f"{type(backbone).__name__} has no packed_states (see hybrid_rl.backbones.packing.PackingBackbone)"
    if hasattr(model, "embed_multimodal") and not hasattr(model, "get_image_features"):
        return "the model embeds its pictures, but has no get_image_features that could encode them once"
    decoder = model.get_decoder()
    config = decoder.config
    kinds = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    if kinds:
        return f"its layers have {' and '.join(sorted(kinds)).replace('_', ' ')}"
    if getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None) is not None:
        return "its attention has a sliding window"
    if getattr(config, "attn_logit_softcapping", None) or getattr(config, "final_logit_softcapping", None):
        return "it caps its logits"
    for name in ("logit_scale", "logits_scaling", "lm_head_multiplier"):
        if (getattr(config, name, None) or 1) != 1:
            return f"it scales its logits ({name})"
    if any(name.rpartition(".")[2] == "sinks" for name, _ in decoder.named_parameters()):
        return "it has attention sinks"
    if not getattr(decoder, "_supports_attention_backend", False):
        return "its attention takes no function of ours"
    if trainable and getattr(config, "attention_dropout", None):
        return "it drops attention weights at random (attention_dropout)"
    return None
