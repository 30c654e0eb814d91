"""A call of a reward, and how it is made in this process."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.loading import LoadedReward, read_returned
from hybrid_rl.scorer_pool.verdict import Verdict, shared, verdicts


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a reward.

    Attributes:
        key: names the reward among those of the scorer.
        arguments: by parameter name; lists, if the call has several responses.
        count: responses of the call; None for a single one.
        timeout_s: of the whole call.
    """

    key: str
    arguments: Mapping[str, Any]
    count: int | None
    timeout_s: float


def call_here(reward: LoadedReward, call: Call) -> list[Verdict]:
    """Make a call in this process; what the reward raises becomes an outcome, with the exception as its cause."""
    began = time.perf_counter()
    try:
        returned = reward.function(**call.arguments)
    except Exception as error:
        return shared(failure(error, time.perf_counter() - began), call.count)
    return judge(returned, call, time.perf_counter() - began)


async def await_here(call: Call, function: Callable[..., Awaitable[Any]]) -> list[Verdict]:
    """The same for a coroutine function."""
    began = time.perf_counter()
    try:
        returned = await function(**call.arguments)
    except Exception as error:
        return shared(failure(error, time.perf_counter() - began), call.count)
    return judge(returned, call, time.perf_counter() - began)


def judge(returned: Any, call: Call, seconds: float) -> list[Verdict]:
    """The verdicts in what a reward returned."""
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        wrong = Verdict(Outcome.ERROR, reason="returned a coroutine; declare it with async def", seconds=seconds)
        return shared(wrong, call.count)
    try:
        return verdicts(read_returned(returned, call.count), seconds)
    except ValueError as error:
        return shared(Verdict(Outcome.ERROR, reason=str(error), seconds=seconds), call.count)


def failure(error: Exception, seconds: float) -> Verdict:
    """The verdict where a reward raised."""
    return Verdict(Outcome.ERROR, reason=f"failed: {type(error).__name__}: {error}", seconds=seconds, cause=error)
