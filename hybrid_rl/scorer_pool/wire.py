"""Frames on a socket: a length, then the bytes. Pickle goes from parent to child only; back come frames of JSON.

A scorer process reads hostile text and may have been taken over by it, so nothing that it sends is ever unpickled.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_HEADER = struct.Struct("!Q")
MAX_REPLY_BYTES = 1 << 16
"""Longest frame a parent accepts from a child."""


class BrokenWire(Exception):
    """The other side is gone, or sends what no honest child would."""


def send(channel: socket.socket, payload: bytes) -> None:
    """Send one frame."""
    channel.sendall(_HEADER.pack(len(payload)))
    channel.sendall(payload)


def receive(channel: socket.socket) -> bytes:
    """Wait for one frame from a trusted side.

    Raises:
        BrokenWire: the other side has closed.
    """
    return _exactly(channel, _HEADER.unpack(_exactly(channel, _HEADER.size))[0])


def _exactly(channel: socket.socket, count: int) -> bytes:
    chunks = []
    while count:
        chunk = channel.recv(min(count, 1 << 20))
        if not chunk:
            raise BrokenWire("closed")
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


class Inbox:
    """Frames of a child, as far as they have arrived. Never waits, never holds more than one frame's limit."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._bytes = bytearray()

    def take(self) -> Iterator[bytes]:
        """The complete frames among what can be read now; those before a broken one are given first.

        Raises:
            BrokenWire: the child has closed, or announces a frame beyond the limit.
        """
        try:
            chunk = self._channel.recv(MAX_REPLY_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise BrokenWire(str(error)) from error
        if not chunk:
            raise BrokenWire("closed")
        self._bytes += chunk
        while len(self._bytes) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._bytes)
            if length > MAX_REPLY_BYTES:
                raise BrokenWire(f"a frame of {length} bytes")
            end = _HEADER.size + length
            if len(self._bytes) < end:
                break
            frame = bytes(self._bytes[_HEADER.size : end])
            del self._bytes[:end]
            yield frame
