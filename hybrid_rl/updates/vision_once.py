"""Each distinct picture of an optimizer step through the vision tower once, forwards and backwards.

A picture is encoded when the first micro-batch shows it; equal pixels are the same picture, whichever groups and modes
show them. Micro-batches read its features as leaves of the graph. What they leave there as gradients goes back through
the tower in one pass at the end: its backward pass is linear, so that the sum may be taken before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.backbones.vision_memory import Piece, VisionMemory


class LearningVision(VisionMemory):
    """A memory of pictures whose features gather gradients until they are sent back, all at once."""

    def __init__(self) -> None:
        super().__init__()
        self._cuts: list[tuple[Tensor, Tensor]] = []

    def features(self, pieces: Sequence[Piece], encode: Callable[[Sequence[Piece]], Sequence[Any]]) -> list[Any]:
        def cut(new: Sequence[Piece]) -> list[Any]:
            return [_map_tensors(found, self._leaf) for found in encode(new)]

        return super().features(pieces, cut)

    def send_back(self) -> None:
        """Send the gradients through the tower. Nothing to do where it is frozen."""
        pairs = [(output, leaf.grad) for output, leaf in self._cuts if leaf.grad is not None]
        self._cuts = []
        if pairs:
            torch.autograd.backward([output for output, _ in pairs], [grad for _, grad in pairs])

    def _leaf(self, output: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        leaf = output.detach().requires_grad_()
        self._cuts.append((output, leaf))
        return leaf


@contextlib.contextmanager
def vision_once() -> Iterator[LearningVision]:
    """For the micro-batches of an optimizer step, which go forwards and backwards inside the block."""
    vision = LearningVision()
    yield vision
    vision.send_back()


def _map_tensors(features: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same features, a tensor, a list or a record of transformers, with every tensor replaced."""
    if isinstance(features, Tensor):
        return function(features)
    if isinstance(features, (tuple, list)):
        return [_map_tensors(entry, function) for entry in features]
    used = ("pooler_output", "deepstack_features")
    mapped = {name: getattr(features, name) for name in used if getattr(features, name, None) is not None}
    return type(features)(**{name: _map_tensors(value, function) for name, value in mapped.items()})
