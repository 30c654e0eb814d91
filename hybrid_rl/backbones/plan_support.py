"""Whether a model's decoder can be told how to attend (`attention_plan`), by what it says of itself."""

from __future__ import annotations

from typing import Any

_NEEDED = ("num_hidden_layers", "num_attention_heads", "hidden_size")


def why_not_planned(model: Any) -> str | None:
    """What a plan cannot do that the model's decoder asks for; None where every layer is plain attention."""
    decoder: Any = model.get_decoder() if hasattr(model, "get_decoder") else None
    config = getattr(decoder, "config", None)
    if config is None or not all(hasattr(config, name) for name in _NEEDED):
        return "its decoder is not found"
    kinds = sorted(set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"})
    if kinds:
        return f"it has layers of {', '.join(kind.replace('_', ' ') for kind in kinds)}"
    if getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True):
        return "its attention has a sliding window"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "its attention scores have a soft cap"
    if any(name.rpartition(".")[2] == "sinks" for name, _ in decoder.named_parameters()):
        return "its attention has sinks"
    if not getattr(decoder, "_supports_attention_backend", False):
        return "it has an attention of its own"
    return None
