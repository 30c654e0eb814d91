"""Equal questions are asked once: the second one waits for the first and finds its verdict in the cache."""

from __future__ import annotations

import asyncio
import weakref


class SingleFlight:
    """A lock for every key that somebody holds or waits for, in the event loop of the caller."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[tuple[int, str], asyncio.Lock] = weakref.WeakValueDictionary()

    def turn(self, key: str) -> asyncio.Lock:
        """The lock; it is there for as long as somebody keeps it."""
        place = (id(asyncio.get_running_loop()), key)
        lock = self._locks.get(place)
        if lock is None:
            lock = self._locks[place] = asyncio.Lock()
        return lock
