"""Each distinct picture of an optimizer step through the vision tower once, forwards and backwards.

A picture is encoded when the first micro-batch shows it; equal pixels are the same picture, whichever groups and modes
show them. Micro-batches read its features as leaves of the graph (`cuts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from hybrid_rl.backbones.vision_memory import Piece, VisionMemory
from hybrid_rl.updates.cuts import Cuts


class LearningVision(VisionMemory):
    """A memory of pictures whose features gather gradients until they are sent back, all at once."""

    def __init__(self) -> None:
        super().__init__()
        self._cuts = Cuts()

    def features(self, pieces: Sequence[Piece], encode: Callable[[Sequence[Piece]], Sequence[Any]]) -> list[Any]:
        def cut(new: Sequence[Piece]) -> list[Any]:
            return [_map_tensors(found, self._cuts.leaf) for found in encode(new)]

        return super().features(pieces, cut)

    def send_back(self) -> None:
        """Send the gradients through the tower. Nothing to do where it is frozen."""
        self._cuts.send_back()


def _map_tensors(features: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same features, a tensor, a list or a record of transformers, with every tensor replaced."""
    if isinstance(features, Tensor):
        return function(features)
    if isinstance(features, (tuple, list)):
        return [_map_tensors(entry, function) for entry in features]
    used = ("pooler_output", "deepstack_features")
    mapped = {name: getattr(features, name) for name in used if getattr(features, name, None) is not None}
    return type(features)(**{name: _map_tensors(value, function) for name, value in mapped.items()})
