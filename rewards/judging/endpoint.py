"""One request to an OpenAI-compatible chat endpoint: what goes out, how much may come back, and how long it may take.

Wire format: https://platform.openai.com/docs/api-reference/chat, as vLLM, SGLang, llama.cpp and others serve it.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from rewards.judging.errors import JudgeError, PassingTrouble
from rewards.judging.verdict import UnreadableVerdict, read_json

_MAX_SAID = 200
"""Characters of a server's own words in a message."""
_NO_WORDS = (401, 403)
"""Servers repeat a part of the key in these."""


class _BadBody(Exception):
    """A reply that is not read to its end."""


class Refused(JudgeError):
    """The server does not take the request (400, 422); another form of it may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a judge is asked.

    Attributes:
        url: of the chat completions.
        api_key_variable: environment variable with the key; None for a server without one.
        timeout_s: limit of one request, from the first byte sent to the last one received.
        max_reply_bytes: of one reply.
    """

    url: str
    api_key_variable: str | None
    timeout_s: float
    max_reply_bytes: int

    async def post(self, client: httpx.AsyncClient, payload: Mapping[str, Any]) -> bytes:
        """Send a request; the body of a reply with status 200.

        Raises:
            PassingTrouble: no connection, no whole reply in time, too many requests (429), or the server's fault (5xx).
            Refused: status 400 or 422.
            JudgeError: any other status, or no key.
        """
        headers = self._headers()
        body = json.dumps(payload).encode()
        trouble, reply = "", None
        try:
            async with asyncio.timeout(self.timeout_s):
                async with client.stream("POST", self.url, content=body, headers=headers) as response:
                    reply = response
                    content = await self._read(response)
        except TimeoutError:
            trouble = f"gave no whole reply within {self.timeout_s:g} s"
        except _BadBody as error:
            trouble = str(error)
        except httpx.HTTPError as error:
            trouble = f"cannot be reached or broke off ({type(error).__name__}: {str(error)[:_MAX_SAID]})"
        # Raised out here, since an exception of httpx holds the request, and the request holds the key.
        if trouble or reply is None:
            raise PassingTrouble(trouble)
        if reply.status_code != 200:
            raise self._failure(reply, content)
        return content

    async def _read(self, response: httpx.Response) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _BadBody("sent a compressed reply, which was not asked for")
        pieces: list[bytes] = []
        size = 0
        async for piece in response.aiter_raw():
            size += len(piece)
            if size > self.max_reply_bytes:
                raise _BadBody(f"sent more than {self.max_reply_bytes} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def _headers(self) -> dict[str, str]:
        # Compressed replies are not asked for: a small one can unpack to gigabytes.
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self.api_key_variable is not None:
            headers["Authorization"] = f"Bearer {api_key(self.api_key_variable)}"
        return headers

    def _failure(self, response: httpx.Response, content: bytes) -> JudgeError:
        status = response.status_code
        words = "" if status in _NO_WORDS else self._said(content)
        sentence = f"answered {status} {response.reason_phrase}".rstrip() + (f" ({words})" if words else "")
        if status == 429 or status >= 500:
            return PassingTrouble(sentence, after_s=seconds_of(response.headers.get("retry-after")))
        if status in (400, 422):
            return Refused(sentence)
        if status in _NO_WORDS:
            variable = self.api_key_variable
            return JudgeError(f"{sentence}; " + (f"look at {variable}" if variable else "give api_key_variable"))
        return JudgeError(sentence)

    def _said(self, content: bytes) -> str:
        """The server's words in one line, without the key, should it repeat it."""
        try:
            error = read_json(content)["error"]
            text = str(error["message"] if isinstance(error, dict) else error)
        except (UnreadableVerdict, KeyError, TypeError):  # not in the usual form: all of it, then
            text = content[: 50 * _MAX_SAID].decode("utf-8", "replace")
        if self.api_key_variable is not None:
            text = text.replace(api_key(self.api_key_variable), "[key]")
        return "".join(sign if sign.isprintable() else " " for sign in " ".join(text.split())[:_MAX_SAID])


def api_key(variable: str) -> str:
    """The key in an environment variable.

    Raises:
        JudgeError: it is not set, or holds signs that no header can carry.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise JudgeError(f"needs a key in the environment variable {variable}, which is not set")
    if not all("!" <= sign <= "~" for sign in key):
        raise JudgeError(f"needs a key, but the environment variable {variable} holds blanks or other odd signs")
    return key


def seconds_of(retry_after: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, given as a number or as a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 20:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())
