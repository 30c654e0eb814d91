"""Decoded images and frames, and what processors make of them, kept by content, bounded in bytes, once a process.

Rollout, reference and update of a step read the same prompts, and so does the next epoch. Keys are digests of content,
never paths: a file that has changed is decoded anew. Nothing is kept until `keep_media` has been told how much.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class MediaMemory:
    """Values by key, up to a number of bytes; what was used longest ago goes first. Safe between threads."""

    def __init__(self, limit_bytes: int = 0) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.num_bytes = 0

    def resize(self, limit_bytes: int) -> None:
        """Keep at most so much from now on."""
        with self._lock:
            self._limit = limit_bytes
            self._shrink()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made if it is not there. Two threads may make one at the same time; one is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                found: T = self._kept[key][0]
                return found
        value = make()
        size = num_bytes(value)
        with self._lock:
            if size <= self._limit and key not in self._kept:
                self._kept[key] = (value, size)
                self.num_bytes += size
                self._shrink()
        return value

    def can_keep(self, num_bytes: int) -> bool:
        """Whether a value of this size would be kept."""
        return num_bytes <= self._limit

    def _shrink(self) -> None:
        while self.num_bytes > self._limit:
            _, (_, size) = self._kept.popitem(last=False)
            self.num_bytes -= size


def num_bytes(value: Any) -> int:
    """Memory of tensors and images in a value, however nested, and of a little around them."""
    if hasattr(value, "nbytes"):  # tensors and arrays
        return int(value.nbytes)
    if hasattr(value, "getbands"):  # an image of 8 bits
        return int(value.width * value.height * len(value.getbands()))
    if isinstance(value, Mapping):
        return sum(map(num_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(num_bytes, value))
    if hasattr(value, "media"):
        return num_bytes(value.media) + 8 * len(value.ids)
    return 64


MEDIA = MediaMemory()
"""The memory of this process."""


def keep_media(mib: int) -> None:
    """Keep so many MiB in this process (`machine.image_cache_mib`)."""
    MEDIA.resize(mib * 2**20)
