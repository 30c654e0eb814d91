"""Finished rollouts on their way from the rollout worker to the reward workers, while others are still generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hybrid_rl.records import Request, Rollout
from hybrid_rl.scoring.stages import Stage
from hybrid_rl.workers.cluster import Handle, Pending

_PARCELS = 8
"""Times that a batch is sent at most: each has a price, and the last ones are what the learner waits for."""


@dataclass(frozen=True, slots=True)
class Judges:
    """Who scores early, and what.

    Attributes:
        handles: reward workers.
        stages: of the rewards that need not wait for the whole batch.
    """

    handles: Sequence[Handle]
    stages: frozenset[Stage]


@dataclass(frozen=True, slots=True)
class Sent:
    """Rollouts that are being judged.

    Attributes:
        places: in the batch of the rollout worker.
        pending: becomes a `Judged`.
    """

    places: tuple[int, ...]
    pending: Pending


class Outbox:
    """Sends finished rollouts on, a few at a time: to rewards of samples at once, to those of groups once a group is
    complete."""

    def __init__(self, judges: Judges, requests: Sequence[Request]) -> None:
        self._judges = judges
        self._rollouts: dict[int, Rollout] = {}
        self._places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            self._places.setdefault(request.group, []).append(place)
        self._left = Counter(request.group for request in requests)
        self._parcel = -(-len(requests) // _PARCELS)
        self._fresh: list[int] = []
        self._complete: list[int] = []
        self.sent: list[Sent] = []

    def add(self, place: int, rollout: Rollout) -> None:
        """Take a finished rollout."""
        group = rollout.request.group
        self._rollouts[place] = rollout
        self._fresh.append(place)
        self._left[group] -= 1
        if not self._left[group]:
            self._complete += self._places[group]
        if len(self._fresh) >= self._parcel:
            self.send()

    def send(self) -> None:
        """Send what is there."""
        parcels: dict[Stage, list[int]] = {"sample": self._fresh, "group": self._complete}
        for stage, places in parcels.items():
            if places and stage in self._judges.stages:
                judge = self._judges.handles[len(self.sent) % len(self._judges.handles)]
                pending = judge.call("judge", [self._rollouts[place] for place in places], frozenset((stage,)))
                self.sent.append(Sent(tuple(places), pending))
        self._fresh, self._complete = [], []
