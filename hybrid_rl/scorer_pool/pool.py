"""Scores cases in a few processes; one that hangs, grows or dies is killed and replaced, the others go on."""

from __future__ import annotations

import contextlib
import math
import pickle
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.child import key_of
from hybrid_rl.scorer_pool.loading import DEFAULT_TIMEOUT_S, RewardSpec
from hybrid_rl.scorer_pool.nursery import Nursery, shared_nursery
from hybrid_rl.scorer_pool.quarantine import Quarantine
from hybrid_rl.scorer_pool.replies import is_number, read_reply, read_scores
from hybrid_rl.scorer_pool.verdict import Verdict, shared, verdicts
from hybrid_rl.scorer_pool.wire import BrokenWire, Inbox, send

_START_S = 10.0
"""How long a scorer may take to begin with a case it was sent; a healthy one is waiting for it."""
_DEATHS_BEFORE = 3
"""Deaths before the case was begun that weigh as much as one on it."""
_RETIRES_AFTER = 5000
"""Cases after which a scorer is replaced, so that a library's caches do not grow into its memory limit."""


@dataclass(frozen=True, slots=True)
class Case:
    """One call of a reward: `reward` names a spec of the pool.

    Attributes:
        timeout_s: of the whole call.
        count: responses in the call, whose arguments are then lists; None for a single one.
    """

    reward: str
    arguments: Mapping[str, Any]
    timeout_s: float = DEFAULT_TIMEOUT_S
    count: int | None = None


@dataclass(slots=True, eq=False)
class _Scorer:
    pid: int
    channel: socket.socket
    inbox: Inbox
    place: int | None = None
    sent: float = 0.0
    began: float | None = None
    deadline: float = math.inf
    scored: int = 0


@dataclass(slots=True)
class _Batch:
    """Cases under way: `waiting` holds places in `cases`, `deaths` the weight of the deaths that a place has cost."""

    cases: Sequence[Case]
    verdicts: list[list[Verdict] | None]
    waiting: deque[int]
    deaths: Counter[int] = field(default_factory=Counter)


class ScorerPool:
    """A few scorers and a spare. Nothing is started before the first case.

    Args:
        specs: the rewards, by the name that cases use.
        size: scorers that work at the same time.
        memory_mib: what each may take beyond the imported libraries.
        quarantine: file of the inputs that kill; None: remembered in memory.
    """

    def __init__(
        self,
        specs: Mapping[str, RewardSpec],
        *,
        size: int = 2,
        memory_mib: int = 1024,
        quarantine: Path | None = None,
    ) -> None:
        self._specs = dict(specs)
        self._keys = {name: key_of(spec) for name, spec in specs.items()}
        self._size = size
        self._memory_bytes = memory_mib << 20
        self._quarantine = Quarantine(quarantine)
        self._nursery: Nursery | None = None
        self._scorers: list[_Scorer] = []
        self.replaced = 0
        """Scorers that were killed or died."""

    def begin(self) -> None:
        """Let the rewards be imported while the caller does something else."""
        if self._nursery is None or not self._nursery.alive:
            self._scorers = []
            self._nursery = shared_nursery()
            for spec in self._specs.values():
                self._nursery.begin_loading(spec)

    def run(self, cases: Sequence[Case]) -> list[Verdict]:
        """One verdict a case, in order, for cases of one response."""
        return [verdict for (verdict,) in self.run_all(cases)]

    def run_all(self, cases: Sequence[Case]) -> list[list[Verdict]]:
        """The verdicts on the responses of each case, in order."""
        batch = _Batch(cases, [None] * len(cases), deque())
        for place, case in enumerate(cases):
            if self._quarantine.holds(case.reward, case.arguments):
                kept_out = Verdict(Outcome.ABSTAIN, reason="in quarantine: it has killed two scorers")
                batch.verdicts[place] = shared(kept_out, case.count)
            else:
                batch.waiting.append(place)
        try:
            if batch.waiting:
                self.begin()
            while batch.waiting or any(scorer.place is not None for scorer in self._scorers):
                self._hand_out(batch)
                self._collect(batch)
        finally:
            # Only where something was raised: a late answer must not be taken for that of the next case.
            for scorer in [s for s in self._scorers if s.place is not None]:
                self._bury(scorer)
        return [found for found in batch.verdicts if found is not None]

    def close(self) -> None:
        """End the scorers."""
        for scorer in list(self._scorers):
            self._bury(scorer)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be half gone
            self.close()

    def _hand_out(self, batch: _Batch) -> None:
        self._fill_up(min(self._size, len(batch.waiting)) if not self._scorers else self._size + 1)
        busy = sum(scorer.place is not None for scorer in self._scorers)
        for scorer in [s for s in self._scorers if s.place is None][: self._size - busy]:
            if not batch.waiting:
                return
            place = batch.waiting.popleft()
            case = batch.cases[place]
            payload = pickle.dumps((self._keys[case.reward], dict(case.arguments), case.count))
            scorer.place, scorer.began = place, None
            scorer.sent = time.monotonic()
            scorer.deadline = scorer.sent + _START_S
            try:
                send(scorer.channel, payload)
            except OSError:
                self._died(batch, scorer)

    def _fill_up(self, count: int) -> None:
        self.begin()
        assert self._nursery is not None
        while len(self._scorers) < count:
            pid, channel = self._nursery.fork(self._memory_bytes)
            channel.settimeout(_START_S)
            self._scorers.append(_Scorer(pid, channel, Inbox(channel)))

    def _collect(self, batch: _Batch) -> None:
        """Wait for the next news of a busy scorer, or for the next deadline."""
        busy = [scorer for scorer in self._scorers if scorer.place is not None]
        if not busy:
            return
        wait_s = max(0.0, min(scorer.deadline for scorer in busy) - time.monotonic())
        with selectors.DefaultSelector() as selector:
            for scorer in busy:
                selector.register(scorer.channel, selectors.EVENT_READ, scorer)
            readable = {key.data for key, _ in selector.select(wait_s)}
        for scorer in busy:
            if scorer in readable:
                self._read(batch, scorer)
            # Asked of every scorer, also of one that talks: chatter must not buy time.
            if scorer.place is not None and time.monotonic() >= scorer.deadline:
                self._overdue(batch, scorer)

    def _read(self, batch: _Batch, scorer: _Scorer) -> None:
        try:
            for frame in scorer.inbox.take():
                self._hear(batch, scorer, frame)
        except BrokenWire:
            if scorer.place is not None:
                self._died(batch, scorer)

    def _hear(self, batch: _Batch, scorer: _Scorer, frame: bytes) -> None:
        """One frame, believed only as far as it has the form of an answer."""
        reply = read_reply(frame)
        if scorer.place is None or reply is None:
            raise BrokenWire("nonsense")
        case = batch.cases[scorer.place]
        if reply.keys() == {"started"} and scorer.began is None:
            scorer.began = time.monotonic()
            scorer.deadline = scorer.began + case.timeout_s
            return
        seconds = reply.pop("seconds", None)
        if scorer.began is None or not is_number(seconds):
            raise BrokenWire("nonsense")
        took_s = min(max(0.0, float(seconds)), time.monotonic() - scorer.sent)
        match reply:
            case {"scores": scores}:
                self._settle(batch, scorer, verdicts(read_scores(scores, case.count), took_s))
            case {"error": reason}:
                failure = Verdict(Outcome.ERROR, reason=str(reason), seconds=took_s)
                self._settle(batch, scorer, shared(failure, case.count))
            case {"memory": _}:
                self._lost(batch, scorer, Outcome.TIMEOUT, f"took more than {self._memory_bytes >> 20} MiB")
            case _:
                raise BrokenWire("nonsense")

    def _settle(self, batch: _Batch, scorer: _Scorer, found: list[Verdict]) -> None:
        assert scorer.place is not None
        batch.verdicts[scorer.place] = found
        scorer.place, scorer.deadline = None, math.inf
        scorer.scored += 1
        if scorer.scored >= _RETIRES_AFTER:
            self._bury(scorer)

    def _overdue(self, batch: _Batch, scorer: _Scorer) -> None:
        assert scorer.place is not None
        if scorer.began is None:
            self._died(batch, scorer)
        else:
            limit_s = batch.cases[scorer.place].timeout_s
            self._lost(batch, scorer, Outcome.TIMEOUT, f"took more than {limit_s:g} s")

    def _died(self, batch: _Batch, scorer: _Scorer) -> None:
        """A death may be an accident, so the case gets another scorer; if that dies too, it is the case.

        A scorer that was dead before it began says nothing about the case, which is only tried more often.
        """
        place = scorer.place
        assert place is not None
        batch.deaths[place] += 1 if scorer.began is None else _DEATHS_BEFORE
        if batch.deaths[place] >= 2 * _DEATHS_BEFORE:
            self._lost(batch, scorer, Outcome.ERROR, "failed: its process died, again and again")
            return
        if scorer.began is not None:
            self._quarantine.add_death(batch.cases[place].reward, batch.cases[place].arguments, "its process died")
        batch.waiting.appendleft(place)
        scorer.place = None
        self.replaced += 1
        self._bury(scorer)

    def _lost(self, batch: _Batch, scorer: _Scorer, outcome: Outcome, reason: str) -> None:
        """A case is settled, and has cost its scorer."""
        assert scorer.place is not None
        case = batch.cases[scorer.place]
        self._quarantine.add_death(case.reward, case.arguments, reason)
        took_s = time.monotonic() - scorer.sent
        self._settle(batch, scorer, shared(Verdict(outcome, reason=reason, seconds=took_s), case.count))
        self.replaced += 1
        self._bury(scorer)

    def _bury(self, scorer: _Scorer) -> None:
        if scorer in self._scorers:
            self._scorers.remove(scorer)
            scorer.channel.close()
            if self._nursery is not None:
                self._nursery.kill(scorer.pid)
