"""Our own attention inside transformers' decoders: one registered function that asks a plan.

A plan says which tokens attend to which and where keys and values lie. It travels as a keyword argument of the forward
pass, which transformers hands down to the attention of every layer (and again when a checkpointed layer is repeated).

Legend: B = rows, H = query heads, K = key/value heads, T = tokens, D = head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor
from transformers import AttentionInterface

NAME = "hybrid_rl_plan"


class AttentionPlan(Protocol):
    """How the tokens of one forward pass attend to each other and to what was kept of earlier ones."""

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, scale: float) -> Tensor:
        """The attention output of a layer [B, T, H, D]."""
        ...


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    attention_plan: AttentionPlan,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attention_plan.attend(module.layer_idx, query, key, value, scale), None


# No mask function has this name, so that transformers builds no mask.
AttentionInterface.register(NAME, _attention)


def repeating_alike(decoder_config: Any) -> Callable[[], tuple[Any, Any]]:
    """For `context_fn` of `torch.utils.checkpoint`: a repeated layer attends as it did the first time.

    It is repeated in the backward pass, when the block of `planned_attention` has been left.
    """

    def contexts() -> tuple[Any, Any]:
        name = decoder_config._attn_implementation
        again = planned_attention(decoder_config) if name == NAME else contextlib.nullcontext()
        return contextlib.nullcontext(), again

    return contexts


@contextlib.contextmanager
def planned_attention(decoder_config: Any) -> Iterator[None]:
    """Inside the block the decoder with this config attends as the argument `attention_plan` of its calls says.

    Only the decoder: a vision tower has a config, and an attention, of its own.
    """
    before = decoder_config._attn_implementation
    decoder_config._attn_implementation = NAME
    try:
        yield
    finally:
        decoder_config._attn_implementation = before
