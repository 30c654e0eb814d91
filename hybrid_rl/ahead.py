"""Rollouts ahead of the learner: those of step s + k are asked for before the update of step s (`train.async_steps`).

There is no clock in it. Workers answer calls in order, and the order is fixed: at step s, ask for the rollouts of step
s + k, wait for those of step s, update, hand out the new weights. So the rollouts of step s are sampled by the weights
of update max(0, s - 1 - k), however long anything takes. On Ray this overlaps with the updates in between; in one
process the same calls are made one after the other and give the same.

What older weights have sampled cannot be sampled again after an interruption. It is stored with the checkpoint, which
waits for it; rollouts of the newest weights are sampled again, and are the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hybrid_rl.dealing import Dealer
from hybrid_rl.errors import RunFolderError, UserError
from hybrid_rl.insight.recorded import read_lines
from hybrid_rl.protocols import ChatFormat
from hybrid_rl.records import Rollout
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.rollout_rows import belongs_to, rollout_of, rollout_row
from hybrid_rl.run_folder import read_json
from hybrid_rl.workers.flight import Flight
from hybrid_rl.workers.pool import RewardPool, RolloutPool

FILE = "ahead.jsonl"
"""In a checkpoint: the rollouts of coming steps that older weights have sampled."""
FIGURES_FILE = "ahead_figures.json"
"""By step, what the engines have done for them."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A step whose rollouts have been asked for after `version` updates."""

    flight: Flight
    version: int


class Ahead:
    """The rollouts of this step and of the coming ones.

    Args:
        steps: how many steps to be ahead.
        last: step of the run.
        stored: rollouts by step that an interrupted run had asked for.
        figures: by step, what the engines had done for them.
    """

    def __init__(
        self,
        dealer: Dealer,
        rollouts: RolloutPool,
        rewards: RewardPool,
        *,
        steps: int,
        last: int,
        stored: Mapping[int, list[Rollout]],
        figures: Mapping[int, Sequence[RolloutFigures]] = MappingProxyType({}),
    ) -> None:
        self._dealer = dealer
        self._rollouts = rollouts
        self._rewards = rewards
        self._steps = steps
        self._last = last
        self._asked = {
            step: _Asked(Flight.landed(found, rewards, figures.get(step, ())), min(r.versions[0] for r in found))
            for step, found in stored.items()
        }

    def take(self, step: int) -> Flight:
        """Ask for whatever is due at a step; returns its own rollouts. Earlier steps are forgotten."""
        self._asked = {number: asked for number, asked in self._asked.items() if number >= step}
        for number in range(step, min(step + self._steps, self._last) + 1):
            if number not in self._asked:
                flight = self._rollouts.launch(self._dealer.first(number), self._rewards)
                self._asked[number] = _Asked(flight, step - 1)
        return self._asked[step].flight

    def save(self, folder: Path, done: int) -> None:
        """Store what older weights than those after `done` steps have sampled for later steps; waits for it.

        A step whose rollouts cannot be had is left out with those behind it. It is asked for anew, by other weights.
        """
        rows, figures = [], {}
        for step, asked in sorted(self._asked.items()):
            if step > done and asked.version < done:
                try:
                    found = asked.flight.rollouts(interruptible=False)
                except UserError:
                    break
                rows += [{"step": step, **rollout_row(rollout)} for rollout in found]
                figures[step] = [of_worker.to_json() for of_worker in asked.flight.figures()]
        if rows:
            (folder / FIGURES_FILE).write_text(json.dumps(figures), encoding="utf-8")
            (folder / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def stored_rollouts(folder: Path, dealer: Dealer, chat: ChatFormat) -> dict[int, list[Rollout]]:
    """By step, the rollouts that `Ahead.save` has stored.

    Raises:
        RunFolderError: they are not what is asked for at these steps.
    """
    rows = list(read_lines(folder / FILE))
    found = {}
    for step in sorted({row["step"] for row in rows}):
        own, requests = [row for row in rows if row["step"] == step], dealer.first(step)
        if len(own) != len(requests) or not all(map(belongs_to, own, requests)):
            raise RunFolderError(
                f"{folder / FILE} does not hold the responses that the config asks for at step {step}; the data or the "
                f"config has changed since the run"
            )
        found[step] = [rollout_of(row, request, chat) for row, request in zip(own, requests, strict=True)]
    return found


def stored_figures(folder: Path) -> dict[int, list[RolloutFigures]]:
    """By step, what the engines had done for the stored rollouts; nothing where earlier versions stored them."""
    path = folder / FIGURES_FILE
    found = read_json(path) if path.is_file() else {}
    return {int(step): [RolloutFigures.from_json(part) for part in parts] for step, parts in found.items()}


def resampled(stored: Collection[int], *, done: int, steps: int, last: int) -> str | None:
    """What to tell of a run that goes on after `done` steps, though older weights would have sampled what follows, and
    have not: its config has changed since, or a worker had died."""
    missing = sorted(set(range(done + 1, min(done + steps, last) + 1)) - set(stored)) if done else []
    if not missing:
        return None
    some = f"step {missing[0]}" if len(missing) == 1 else f"steps {missing[0]} to {missing[-1]}"
    return (
        f"the checkpoint holds no rollouts of {some}, so that the present weights sample them: the run goes on, but "
        f"not exactly as it would have gone on by itself"
    )
