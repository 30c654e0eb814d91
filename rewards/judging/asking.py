"""Asks a judge until it gives a verdict, within limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from rewards.judging.connections import Connections
from rewards.judging.endpoint import Endpoint, Refused
from rewards.judging.errors import JudgeError, PassingTrouble
from rewards.judging.reply import read_reply
from rewards.judging.usage import Meter, Usage
from rewards.judging.verdict import VERDICT_FORMAT, UnreadableVerdict, Verdict, read_verdict

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long to wait for a judge.

    Attributes:
        retries: further requests after a failed one.
        first_wait_s: before the first of them, doubled each time.
        max_wait_s: of one wait; a server that asks for a longer one is given up.
    """

    retries: int
    first_wait_s: float
    max_wait_s: float

    def wait_s(self, retry: int, asked_for_s: float | None) -> float:
        """Seconds before a retry, counted from 0: between a half and the whole of the doubling wait, or as asked for.

        Half of it is drawn at random, so that those who failed together do not come back together.
        """
        longest = min(self.max_wait_s, self.first_wait_s * 2.0 ** min(retry, 60))
        return max(asked_for_s or 0.0, random.uniform(longest / 2, longest))


class Asker:
    """One model at one endpoint.

    Args:
        sampling: further fields of the request, such as `temperature`.
        structured: ask for the verdict by JSON schema, until the endpoint refuses a request that does.
        max_requests: under way at once.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        sampling: Mapping[str, Any],
        structured: bool,
        patience: Patience,
        max_requests: int,
    ) -> None:
        self._endpoint = endpoint
        self._model = model
        self._sampling = dict(sampling)
        self._structured = structured
        self._patience = patience
        self._connections = Connections(max_requests)

    def __str__(self) -> str:
        return f"the judge {self._model} at {self._endpoint.url}"

    async def ask(self, messages: Callable[[], Messages], meter: Meter, *, retries: int | None = None) -> Verdict:
        """Ask until there is a verdict.

        Args:
            messages: makes the messages anew for each request, so that no two carry the same mark.
            meter: is told what each request costs.
            retries: other than usual.

        Raises:
            JudgeError: no verdict after all retries, or a failure that a retry does not mend.
        """
        retries = self._patience.retries if retries is None else retries
        # Who waits for the next attempt keeps its turn: a server in trouble gets fewer requests, not other ones.
        async with self._connections.slot() as client:
            for retry in range(retries + 1):
                failure = await self._once(client, messages(), meter)
                if isinstance(failure, Verdict):
                    return failure
                if retry < retries:
                    await asyncio.sleep(self._wait_s(retry, failure))
                    meter.add(Usage(retries=1))
        raise JudgeError(f"{self} {failure}" + (f", {retries + 1} times in a row" if retries else ""))

    async def _once(self, client: httpx.AsyncClient, messages: Messages, meter: Meter) -> Verdict | PassingTrouble:
        try:
            reply = read_reply(await self._post(client, messages, meter))
            meter.add(Usage(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens))
            return read_verdict(reply.text)
        except UnreadableVerdict as unreadable:
            return PassingTrouble(f"gave no verdict: {unreadable}")
        except PassingTrouble as trouble:
            return trouble
        except JudgeError as error:
            raise JudgeError(f"{self} {error}") from None

    async def _post(self, client: httpx.AsyncClient, messages: Messages, meter: Meter) -> bytes:
        payload = {**self._sampling, "model": self._model, "messages": messages}
        if self._structured:
            try:
                meter.add(Usage(requests=1))
                return await self._endpoint.post(client, {**payload, "response_format": dict(VERDICT_FORMAT)})
            except Refused:
                pass  # perhaps for the schema: the same without it tells
        meter.add(Usage(requests=1))
        body = await self._endpoint.post(client, payload)
        self._structured = False
        return body

    def _wait_s(self, retry: int, failure: PassingTrouble) -> float:
        wait_s = self._patience.wait_s(retry, failure.after_s)
        if wait_s > self._patience.max_wait_s:
            raise JudgeError(f"{self} {failure} and asks to wait {wait_s:.0f} s, longer than max_wait_s")
        return wait_s
