"""One HTTP client an event loop, open while somebody uses it, with a limit on requests under way."""

from __future__ import annotations

import asyncio
import ssl
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx


class _Room:
    """What belongs to one event loop."""

    def __init__(self, limit: int) -> None:
        self.slots = asyncio.Semaphore(limit)
        self.client: httpx.AsyncClient | None = None
        self.users = 0


class Connections:
    """Gives out clients. Each caller may run its own event loop, and leave it without a word.

    Args:
        limit: requests under way at once, an event loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._context: ssl.SSLContext | None = None
        self._rooms: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Room] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[httpx.AsyncClient]:
        """Wait for a turn. The last one out closes the client, so that no socket outlives its loop."""
        room = self._room()
        room.users += 1
        try:
            async with room.slots:
                if room.client is None:
                    room.client = self._new_client()
                yield room.client
        finally:
            room.users -= 1
            if not room.users and room.client is not None:
                client, room.client = room.client, None
                await client.aclose()

    def _room(self) -> _Room:
        loop = asyncio.get_running_loop()
        with self._lock:
            room = self._rooms.get(loop)
            if room is None:
                room = self._rooms[loop] = _Room(self._limit)
            return room

    def _new_client(self) -> httpx.AsyncClient:
        if self._context is None:
            self._context = httpx.create_ssl_context()  # reads a list of authorities: once is enough
        limits = httpx.Limits(max_connections=self._limit, max_keepalive_connections=self._limit)
        # Redirects are not followed: they would take the key along.
        return httpx.AsyncClient(verify=self._context, limits=limits, timeout=None, follow_redirects=False)
