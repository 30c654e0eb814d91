"""A chat endpoint on this machine that answers as a test tells it to: a real server, with real sockets."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """A request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at_s: float = field(default_factory=time.monotonic)

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def text(self) -> str:
        """What the user's message says, images left out."""
        content = self.body["messages"][1]["content"]
        return str(content if isinstance(content, str) else content[-1]["text"])

    @property
    def image_urls(self) -> list[str]:
        content = self.body["messages"][1]["content"]
        return [] if isinstance(content, str) else [part["image_url"]["url"] for part in content[:-1]]


Answer = Callable[["Handler", Received], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        received = Received(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(raw))
        with self.server.lock:
            self.server.received.append(received)
            answer = self.server.script.popleft() if self.server.script else self.server.default
            self.server.busy += 1
            self.server.most_busy = max(self.server.most_busy, self.server.busy)
        try:
            answer(self, received)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the caller has left
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.received: list[Received] = []
        self.script: deque[Answer] = deque()
        self.default: Answer = verdict(1.0)
        self.busy = 0
        self.most_busy = 0


class ChatServer:
    """Answers each request with the next of `script`, then with `default`."""

    def __init__(self) -> None:
        self._server = _Server()
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def answer(self, *script: Answer, then: Answer | None = None) -> None:
        self._server.script.extend(script)
        if then is not None:
            self._server.default = then

    @property
    def received(self) -> list[Received]:
        return self._server.received

    @property
    def most_busy(self) -> int:
        """Requests that were under way at the same time, at most."""
        return self._server.most_busy

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def completion(content: Any, **usage: Any) -> bytes:
    """A chat completion with one choice."""
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps({"object": "chat.completion", "choices": choices, "usage": usage}).encode()


def says(content: Any, **usage: Any) -> Answer:
    """Status 200 with these words of the model's."""
    return body(completion(content, **usage))


def verdict(score: Any, reason: str = "as in the reference") -> Answer:
    """A verdict, which cost 100 tokens read and 10 written."""
    return says(json.dumps({"reason": reason, "score": score}), prompt_tokens=100, completion_tokens=10)


def body(data: bytes, status: int = 200, **headers: str) -> Answer:
    """Any bytes."""
    return lambda handler, received: handler.reply(status, data, **headers)


def status(number: int, message: str = "", **headers: str) -> Answer:
    """A failure as such servers report it."""
    return body(json.dumps({"error": {"message": message}}).encode(), number, **headers)


def slow(seconds: float, answer: Answer) -> Answer:
    """Another answer, later."""

    def later(handler: Handler, received: Received) -> None:
        time.sleep(seconds)
        answer(handler, received)

    return later


def together(number: int, answer: Answer) -> Answer:
    """Another answer, as soon as so many requests wait for theirs."""
    barrier = threading.Barrier(number, timeout=30)

    def meet(handler: Handler, received: Received) -> None:
        barrier.wait()
        answer(handler, received)

    return meet


def dripping(handler: Handler, received: Received) -> None:
    """A byte every now and then: no single read is late, and the reply never ends."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def truncated(handler: Handler, received: Received) -> None:
    """Promises more than it sends, then hangs up."""
    data = completion('{"reason": "", "score": 1}')
    handler.send_response(200)
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[:20])
    handler.wfile.flush()
    handler.close_connection = True


def hangs_up(handler: Handler, received: Received) -> None:
    """No reply at all."""
    handler.close_connection = True


def endless(handler: Handler, received: Received) -> None:
    """A reply without an end, as fast as it is taken."""
    handler.send_response(200)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    for _ in range(10_000):
        handler.wfile.write(chunk)
