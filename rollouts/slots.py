"""Who is in flight: a slot that a short response leaves is taken at once by the next one in the queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class Slots:
    """At most `most` responses together; the longest first, so that none of them is left to decode alone at the end.

    Args:
        group_of: the group of each response, numbered from 0.
        budgets: most tokens of each response.
    """

    def __init__(self, group_of: Sequence[int], budgets: Sequence[int], most: int) -> None:
        self.rows: list[int] = []
        """The responses in flight, in the order in which they came."""
        self._group_of = group_of
        self._most = most
        longest = [0] * (max(group_of, default=-1) + 1)
        self._left = list(longest)
        for group, budget in zip(group_of, budgets, strict=True):
            longest[group] = max(longest[group], budget)
            self._left[group] += 1
        # The responses of a group come one after the other: they are attended to together, and so is their prompt
        # forgotten early.
        order = sorted(range(len(group_of)), key=lambda r: (-longest[group_of[r]], group_of[r], r))
        self._queue = deque(order)

    def fill(self) -> list[int]:
        """The responses that take the free slots, behind those in flight."""
        new = [self._queue.popleft() for _ in range(min(self._most - len(self.rows), len(self._queue)))]
        self.rows += new
        return new

    def keep(self, places: Sequence[int]) -> list[int]:
        """The rows at all other places have ended. Returns the groups that are done with."""
        staying = set(places)
        ended = [row for place, row in enumerate(self.rows) if place not in staying]
        self.rows = [self.rows[place] for place in places]
        done = []
        for row in ended:
            group = self._group_of[row]
            self._left[group] -= 1
            if self._left[group] == 0:
                done.append(group)
        return done
