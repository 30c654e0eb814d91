"""What a model is given before it is trained."""

from __future__ import annotations

from typing import Any

from hybrid_rl.backbones.attention_plan import repeating_alike
from hybrid_rl.backbones.lean_layers import lean_layers


def prepare_for_training(model: Any, *, gradient_checkpointing: bool) -> None:
    """Short backward passes, and layers that are repeated in them instead of kept, where that is asked for."""
    lean_layers(model)
    if gradient_checkpointing:
        context = repeating_alike(model.get_decoder().config)
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": context})
