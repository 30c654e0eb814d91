"""The local page on which responses are marked: standard library server, one reader, nothing a model wrote can act.

It listens on 127.0.0.1 alone, under a path that holds a secret, answers only to its own name (against pages that rebind
theirs), and serves pages without scripts under a policy that forbids them.
"""

from __future__ import annotations

import functools
import hmac
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jinja2

from hybrid_rl.authoring.audit import MARKS, Audit
from hybrid_rl.authoring.audit_draw import Key
from hybrid_rl.insight.comparison import finite, mapping
from hybrid_rl.insight.recorded import RecordedRun, read_lines
from hybrid_rl.insight.thumbnails import thumbnails
from hybrid_rl.insight.visible import shorten, visible

_LONGEST = 20_000
"""Characters shown of one text."""
_MAX_FORM = 4096
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class AuditServer(ThreadingHTTPServer):
    """Serves the pages of an audit.

    Args:
        port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, run: RecordedRun, audit: Audit, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.run = run
        self.audit = audit
        self.token = secrets.token_urlsafe(24)
        folder = Path(__file__).parent
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined,
            finalize=lambda value: visible(value) if isinstance(value, str) else value,
        )  # fmt: skip
        self._template = environment.get_template("audit.html.j2")

    @property
    def url(self) -> str:
        """Where the page is; the secret is part of it."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    @property
    def keys(self) -> list[Key]:
        """The drawn responses, in order."""
        assert self.audit.draw is not None
        return [key for key, _ in self.audit.draw.chosen]

    def first_open(self) -> int:
        """Number of the first response without a mark; that of the last one, if all have one."""
        keys = self.keys
        return next((n for n, key in enumerate(keys) if key not in self.audit.marks), len(keys) - 1)

    def page(self, number: int) -> str:
        """The page of a response."""
        keys = self.keys
        key = keys[number]
        row = _row(self.run, key)
        accuracy = finite(mapping(row.get("parts")).get("accuracy"))
        return self._template.render(
            number=number,
            count=len(keys),
            marked=sum(key in self.audit.marks for key in keys),
            mark=self.audit.marks.get(key),
            marks=MARKS,
            prompt=_shown(row.get("prompt")),
            gold=_shown(row.get("gold")),
            answer=None if row.get("answer") is None else _shown(row.get("answer")),
            text=_shown(row.get("text")),
            mode=_shown(row.get("mode")),
            task=_shown(row.get("task")),
            prompt_id=_shown(row.get("prompt_id")),
            verdict="not judged" if accuracy is None else "right" if accuracy > 0.5 else "wrong",
            parts=[(str(name), finite(value)) for name, value in mapping(row.get("parts")).items()],
            images=thumbnails(self.run.path, row),
        )


@functools.lru_cache(maxsize=8)
def _rows(path: Path) -> list[dict[str, Any]]:
    return list(read_lines(path))


def _row(run: RecordedRun, key: Key) -> dict[str, Any]:
    """The recorded response; an empty one where its file is gone."""
    path = dict(run.rollout_files).get(key.step)
    rows = _rows(path) if path is not None else []
    return rows[key.line] if 0 <= key.line < len(rows) else {}


def _shown(value: object) -> str:
    return shorten(str(value if value is not None else "").strip(), _LONGEST)


class _Handler(BaseHTTPRequestHandler):
    server: AuditServer
    server_version, sys_version = "hybrid-rl", ""

    def do_GET(self) -> None:
        number = self._number()
        if number is None:
            return
        self._send(200, self.server.page(number))

    def do_POST(self) -> None:
        """Keep a mark, and go on to the next response."""
        number = self._number()
        if number is None:
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MAX_FORM:
            self._refuse(413, "the form is too long")
            return
        form = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"))
        mark = form.get("mark", [""])[-1]
        if mark not in MARKS:
            self._refuse(400, f"a mark is one of {', '.join(MARKS)}")
            return
        self.server.audit.mark(self.server.keys[number], mark)
        self.send_response(303)
        self.send_header("Location", f"/{self.server.token}/{self.server.first_open()}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _number(self) -> int | None:
        """The response that the path names; None after a refusal."""
        token, _, rest = urlsplit(self.path).path.removeprefix("/").partition("/")
        hosts = {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")}
        if self.headers.get("Host") not in hosts or not hmac.compare_digest(
            token.encode("utf-8", "replace"), self.server.token.encode()
        ):
            self._refuse(403, "open the address that the command has printed")
            return None
        if not rest:
            return self.server.first_open()
        if not (rest.isascii() and rest.isdecimal() and len(rest) < 9 and int(rest) < len(self.server.keys)):
            self._refuse(404, "there is no such response")
            return None
        return int(rest)

    def _refuse(self, status: int, sentence: str) -> None:
        self.close_connection = True  # what else was sent is not read
        self._send(status, f"<!doctype html><p>{sentence}</p>")

    def _send(self, status: int, page: str) -> None:
        data = page.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Say nothing: the path holds the secret."""
