"""What the backbones share: calling a model for its last logits, one token further, or without its head."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.backbones.layout import Decoding


def call(model: Any, logits_to_keep: int, **arguments: Any) -> Any:
    """Forward pass with the logits of the last `logits_to_keep` columns only."""
    if accepts(model, "logits_to_keep"):
        return model(logits_to_keep=logits_to_keep, **arguments)
    output = model(**arguments)
    output.logits = output.logits[:, -logits_to_keep:]
    return output


def states(model: Any, columns_M: Tensor, **arguments: Any) -> Tensor:
    """What the vocabulary head would read at some columns of a single row [M, D]: the forward pass without the head."""
    with _headless(model):
        if accepts(model, "logits_to_keep"):
            states_MD: Tensor = model(logits_to_keep=columns_M, **arguments).logits[0]
            return states_MD
        states_ND: Tensor = model(**arguments).logits[0]
        return states_ND[columns_M]


@contextlib.contextmanager
def _headless(model: Any) -> Iterator[None]:
    """Inside the block the vocabulary head hands on what it is given."""
    head = model.get_output_embeddings()
    own = head.__dict__.get("forward")
    head.forward = lambda states: states
    try:
        yield
    finally:
        if own is None:
            del head.forward
        else:
            head.forward = own


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
