"""Async rewards: awaited in an event loop of their own, so that a caller's own loop (a notebook's) does not matter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.loading import LoadedReward
from hybrid_rl.scorer_pool.verdict import Verdict, shared
from hybrid_rl.scoring.calls import Call, await_here


class EventLoop:
    """A thread with a loop, started for the first call.

    Args:
        rewards: by key.
        max_concurrency: by key, calls that are under way at once.
    """

    def __init__(self, rewards: Mapping[str, LoadedReward], max_concurrency: Mapping[str, int]) -> None:
        self._rewards = rewards
        self._gates = {key: asyncio.Semaphore(count) for key, count in max_concurrency.items()}
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, calls: Sequence[Call]) -> Callable[[], list[list[Verdict]]]:
        """Start calls; what is returned waits for the verdicts on the responses of each."""
        if not calls:
            return list
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="async rewards", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(self._all(calls), self._loop).result

    async def _all(self, calls: Sequence[Call]) -> list[list[Verdict]]:
        return list(await asyncio.gather(*map(self._one, calls)))

    async def _one(self, call: Call) -> list[Verdict]:
        async with self._gates[call.key]:  # a call's time begins when its turn has come
            try:
                async with asyncio.timeout(call.timeout_s):
                    return await await_here(call, self._rewards[call.key].function)
            except TimeoutError:
                late = Verdict(Outcome.TIMEOUT, reason=f"took more than {call.timeout_s:g} s", seconds=call.timeout_s)
                return shared(late, call.count)

    def close(self) -> None:
        """End the thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None
