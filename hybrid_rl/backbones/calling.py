"""What the backbones share: calling a model for its last logits, one token further, or without its head."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_plan import AttentionPlan, planned_attention
from hybrid_rl.backbones.layout import Decoding


def call(model: Any, logits_to_keep: int | Tensor, **arguments: Any) -> Any:
    """Forward pass with the logits of the last `logits_to_keep` columns only, or of the columns with these indices."""
    if accepts(model, "logits_to_keep"):
        return model(logits_to_keep=logits_to_keep, **arguments)
    output = model(**arguments)
    kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
    output.logits = output.logits[:, kept]
    return output


def call_planned(model: Any, plan: AttentionPlan, logits_to_keep: int | Tensor, **arguments: Any) -> Tensor:
    """Logits of a forward pass in which the decoder attends as the plan says, and that keeps no cache [B, T, V]."""
    with planned_attention(model.get_decoder().config):
        output = call(model, logits_to_keep, use_cache=False, attention_plan=plan, **arguments)
    logits_BTV: Tensor = output.logits
    return logits_BTV


def planned_states(model: Any, plan: AttentionPlan, columns_M: Tensor, **arguments: Any) -> Tensor:
    """What the vocabulary head reads at these columns of the only row [M, D], in a forward pass as `call_planned`'s."""
    with _headless(model):
        return call_planned(model, plan, columns_M, **arguments)[0]


@contextlib.contextmanager
def _headless(model: Any) -> Iterator[None]:
    """Inside the block the vocabulary head hands on what it is given."""
    head = model.get_output_embeddings()
    own = head.__dict__.get("forward")
    head.forward = lambda states: states
    try:
        yield
    finally:
        del head.forward
        if own is not None:
            head.forward = own


def decode_planned(
    model: Any, tokens_B: Tensor, positions_B: Tensor, plan: AttentionPlan, axes: int | None = None
) -> Tensor:
    """Feed one token a row at these positions and return the logits that predict the next one [B, V].

    Args:
        axes: see `decode`.
    """
    positions_B1 = positions_B[:, None]
    return call_planned(
        model,
        plan,
        1,
        input_ids=tokens_B[:, None],
        position_ids=positions_B1 if axes is None else positions_B1.expand(axes, -1, -1),
    )[:, -1]


def last_columns(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Where prompts end that stand end to end [U]."""
    return torch.tensor(lengths, device=device).cumsum(0) - 1


def decode(model: Any, tokens_B: Tensor, decoding: Decoding, axes: int | None = None) -> Tensor:
    """Feed one token a row and return the logits that predict the next one [B, V].

    Args:
        axes: rows of the position ids of a model that has several (M-RoPE), in which text is the same.
    """
    positions = decoding.add_column()
    output = call(
        model,
        1,
        input_ids=tokens_B[:, None],
        attention_mask=decoding.attention_BT,
        position_ids=positions if axes is None else positions.expand(axes, -1, -1),
        past_key_values=decoding.cache,
        use_cache=True,
    )
    logits_BV: Tensor = output.logits[:, -1]
    return logits_BV


def accepts(model: Any, name: str) -> bool:
    """Whether the forward pass of a model's class has an argument of that name."""
    return name in _arguments(type(model).forward)


@functools.lru_cache  # asked at every token
def _arguments(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def takes(function: Any, name: str) -> bool:
    """Whether a function has a parameter of that name."""
    return name in inspect.signature(function).parameters


def on_device(value: Any, device: torch.device) -> Any:
    """A value with all tensors in it on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return [on_device(item, device) for item in value]
    return value
