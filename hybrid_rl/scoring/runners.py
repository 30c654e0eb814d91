"""Makes calls of rewards where each belongs: scorer processes, an event loop, a worker of its own, or here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybrid_rl.protocols import RewardHost
from hybrid_rl.scorer_pool.loading import LoadedReward, RewardSpec, RunsIn
from hybrid_rl.scorer_pool.pool import Case, ScorerPool
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring.calls import Call, call_here
from hybrid_rl.scoring.event_loop import EventLoop


@dataclass(frozen=True, slots=True)
class Placed:
    """A reward, and where it runs."""

    spec: RewardSpec
    reward: LoadedReward
    runs_in: RunsIn
    max_concurrency: int = 8


class Runners:
    """All places that rewards run in.

    Args:
        rewards: by key.
        processes: scorer processes that work at the same time.
        quarantine: file for inputs that have killed two scorers.
        hosts: by key, the workers of rewards that run as actors; without one such a reward runs here.
    """

    def __init__(
        self,
        rewards: Mapping[str, Placed],
        *,
        processes: int = 2,
        quarantine: Path | None = None,
        hosts: Mapping[str, RewardHost] | None = None,
    ) -> None:
        self._rewards = dict(rewards)
        self._hosts = dict(hosts or {})
        pooled = {key: placed.spec for key, placed in rewards.items() if placed.runs_in == "pool"}
        self._pool = ScorerPool(pooled, size=processes, quarantine=quarantine)
        self._has_pooled = bool(pooled)
        self._loop = EventLoop(
            {key: placed.reward for key, placed in rewards.items()},
            {key: placed.max_concurrency for key, placed in rewards.items()},
        )

    def begin(self) -> None:
        """Let the scorer processes import the rewards that run there, while the caller does something else."""
        if self._has_pooled:
            self._pool.begin()

    def run(self, calls: Sequence[Call]) -> list[list[Verdict]]:
        """The verdicts on the responses of each call, in order."""
        by_place: dict[str, list[int]] = defaultdict(list)
        for number, call in enumerate(calls):
            by_place[self._place(call.key)].append(number)
        found: dict[int, list[Verdict]] = {}
        # What runs elsewhere is started first and collected last.
        waiting = [
            (numbers, self._elsewhere(place)([calls[n] for n in numbers]))
            for place, numbers in by_place.items()
            if place not in ("pool", "inline")
        ]
        pooled = [Case(c.key, c.arguments, c.timeout_s, c.count) for c in (calls[n] for n in by_place["pool"])]
        found.update(zip(by_place["pool"], self._pool.run_all(pooled), strict=True))
        for number in by_place["inline"]:
            found[number] = call_here(self._rewards[calls[number].key].reward, calls[number])
        for numbers, wait in waiting:
            found.update(zip(numbers, wait(), strict=True))
        return [found[number] for number in range(len(calls))]

    def close(self) -> None:
        """End the processes and the event loop."""
        self._pool.close()
        self._loop.close()

    def _place(self, key: str) -> str:
        """`pool`, `inline`, `async`, or the key of a host."""
        runs_in = self._rewards[key].runs_in
        if runs_in != "actor":
            return runs_in
        return f"actor {key}" if key in self._hosts else "inline"

    def _elsewhere(self, place: str) -> Callable[[Sequence[Call]], Callable[[], list[list[Verdict]]]]:
        return self._loop.begin if place == "async" else self._hosts[place.removeprefix("actor ")].begin
