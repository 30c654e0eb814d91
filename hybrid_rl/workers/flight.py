"""Requests on their way through the workers: they become rollouts, and these get scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hybrid_rl.records import Rollout, Score
from hybrid_rl.workers.cluster import Pending, gather

Scoring = Callable[[Sequence[Rollout]], list[Score]]


class Flight:
    """Rollouts that have been asked for.

    Args:
        pending: calls whose results are rollouts, in order.
        before: calls that the same workers answer first, as one that hands them new weights.
        score: scores rollouts.
    """

    def __init__(self, pending: Sequence[Pending], before: Sequence[Pending], score: Scoring) -> None:
        self._pending = pending
        self._before = before
        self._score = score
        self._rollouts: list[Rollout] | None = None

    @classmethod
    def landed(cls, rollouts: Sequence[Rollout], score: Scoring) -> Flight:
        """Of rollouts that are there already."""
        flight = cls((), (), score)
        flight._rollouts = list(rollouts)
        return flight

    def rollouts(self, *, interruptible: bool = True) -> list[Rollout]:
        """Wait for the rollouts, one a request, in order."""
        if self._rollouts is None:
            gather(self._before, interruptible=interruptible)
            parts = gather(self._pending, interruptible=interruptible)
            self._rollouts = [rollout for part in parts for rollout in part]
        return self._rollouts

    def scores(self) -> list[Score]:
        """Wait for the scores, one a rollout, in order.

        Raises:
            RewardError: see `RewardPool.score`.
        """
        return self._score(self.rollouts())
