"""Which backbone a model gets, by what it offers."""

from __future__ import annotations

from typing import Any

from hybrid_rl.backbones.embedded import EmbeddedBackbone
from hybrid_rl.backbones.native import NativeBackbone
from hybrid_rl.protocols import Backbone


def choose_backbone(model: Any) -> Backbone:
    """Models that embed their images beforehand, and those of text, are given embeddings; the others token ids."""
    base = getattr(model, "model", None)
    has_images = hasattr(model, "get_image_features") or hasattr(base, "get_image_features")
    if hasattr(model, "embed_multimodal") or not has_images:
        return EmbeddedBackbone()
    return NativeBackbone()
