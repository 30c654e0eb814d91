"""What the vision tower found, by the content of what it was shown: equal pixels are encoded once.

A memory is good for one use of one set of weights: a call of a rollout engine, a forward pass of the trainer.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Piece = Mapping[str, Any]
"""Arguments that have the tower encode one thing: an image, a slice of one, or what cannot be told apart."""


class VisionMemory:
    """Attributes:
    encodes: pieces that went through the tower.
    """

    def __init__(self) -> None:
        self._features: dict[bytes, Any] = {}
        self.encodes = 0

    @property
    def num_unique(self) -> int:
        """Pieces of different content that were asked for."""
        return len(self._features)

    def features(self, pieces: Sequence[Piece], encode: Callable[[Sequence[Piece]], Sequence[Any]]) -> list[Any]:
        """The features of each piece. Those that are not known yet are encoded, in one call."""
        keys = [content_key(piece) for piece in pieces]
        new = {key: piece for key, piece in zip(keys, pieces, strict=True) if key not in self._features}
        if new:
            self._features.update(zip(new, encode(list(new.values())), strict=True))
            self.encodes += len(new)
        return [self._features[key] for key in keys]


def content_key(value: Any) -> bytes:
    """Equal for values of equal content, tensors in them included."""
    digest = hashlib.blake2b(digest_size=16)
    _add(digest, value)
    return digest.digest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key}=".encode())
            _add(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}]".encode())
        for entry in value:
            _add(digest, entry)
    else:
        digest.update(repr(value).encode())


@contextlib.contextmanager
def answering(module: Any, features: Any) -> Iterator[None]:
    """Inside the block, `get_image_features` of a module returns these, whatever it is asked."""
    before = module.__dict__.get("get_image_features")
    module.get_image_features = lambda *args, **kwargs: features
    try:
        yield
    finally:
        del module.get_image_features
        if before is not None:
            module.get_image_features = before
