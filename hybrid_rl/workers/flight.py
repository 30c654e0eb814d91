"""Requests on their way through the workers: they become rollouts, and these get scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hybrid_rl.records import Rollout, Score
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.workers.cluster import Pending, gather
from hybrid_rl.workers.outbox import Sent


class Scores(Protocol):
    """See `hybrid_rl.workers.pool.RewardPool`."""

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]: ...

    def finish(self, rollouts: Sequence[Rollout], early: Sequence[Mapping[str, Verdict]]) -> list[Score]: ...


class Flight:
    """Rollouts that have been asked for.

    Args:
        pending: calls whose results are rollouts, in order.
        before: calls that the same workers answer first, as one that hands them new weights.
        rewards: what scores them.
        figures: calls that say what each worker's engine has done for them, answered right behind.

    Attributes:
        hidden_s: seconds of scoring that nobody has waited for; 0 before `scores`.
    """

    def __init__(
        self,
        pending: Sequence[Pending],
        before: Sequence[Pending],
        rewards: Scores,
        *,
        figures: Sequence[Pending] = (),
    ) -> None:
        self._pending = pending
        self._asked = figures
        self._figures: list[RolloutFigures] | None = None
        self._before = before
        self._rewards = rewards
        self._rollouts: list[Rollout] | None = None
        self.hidden_s = 0.0

    @classmethod
    def landed(cls, rollouts: Sequence[Rollout], rewards: Scores, figures: Sequence[RolloutFigures] = ()) -> Flight:
        """Of rollouts that are there already."""
        flight = cls((), (), rewards)
        flight._rollouts, flight._figures = list(rollouts), list(figures)
        return flight

    def rollouts(self, *, interruptible: bool = True) -> list[Rollout]:
        """Wait for the rollouts, one a request, in order."""
        if self._rollouts is None:
            gather(self._before, interruptible=interruptible)
            self._rollouts = self._wait(interruptible)
        return self._rollouts

    def figures(self) -> list[RolloutFigures]:
        """What the engine of each worker that took part has done for them. They are there once the rollouts are."""
        if self._figures is None:
            self._figures = gather(self._asked, interruptible=False)
        return self._figures

    def scores(self) -> list[Score]:
        """Wait for the scores, one a rollout, in order.

        Raises:
            RewardError: see `RewardPool.score`.
        """
        return self._rewards.score(self.rollouts())

    def _wait(self, interruptible: bool) -> list[Rollout]:
        return [rollout for part in gather(self._pending, interruptible=interruptible) for rollout in part]


class StreamedFlight(Flight):
    """Rollouts that are judged as they finish.

    Args:
        pending: calls whose results are `hybrid_rl.workers.rollout.Streamed`.
        adopt: see `Cluster.adopt`.
    """

    def __init__(
        self,
        pending: Sequence[Pending],
        before: Sequence[Pending],
        rewards: Scores,
        adopt: Callable[[Pending], Pending],
        *,
        figures: Sequence[Pending] = (),
    ) -> None:
        super().__init__(pending, before, rewards, figures=figures)
        self._adopt = adopt
        self._sent: list[tuple[int, Sent]] | None = []

    def _wait(self, interruptible: bool) -> list[Rollout]:
        rollouts: list[Rollout] = []
        sent: list[tuple[int, Sent]] = []
        early = True
        for streamed in gather(self._pending, interruptible=interruptible):
            early = early and streamed.sent is not None
            sent += [(len(rollouts), parcel) for parcel in streamed.sent or ()]
            rollouts += streamed.rollouts
        self._sent = sent if early else None
        return rollouts

    def scores(self) -> list[Score]:
        """As `Flight.scores`."""
        rollouts = self.rollouts()
        if self._sent is None:  # the engine hands out nothing early
            return self._rewards.score(rollouts)
        began, busy_s = time.monotonic(), 0.0
        found: list[dict[str, Verdict]] = [{} for _ in rollouts]
        for first, parcel in self._sent:
            judged = self._adopt(parcel.pending).result()
            busy_s += judged.seconds
            for place, verdicts in zip(parcel.places, judged.verdicts, strict=True):
                found[first + place] |= verdicts
        self.hidden_s = max(0.0, busy_s - (time.monotonic() - began))
        return self._rewards.finish(rollouts, found)
