"""A reward under test: called outside of training, in the places where training calls it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from hybrid_rl.errors import PluginError
from hybrid_rl.records import Message, Outcome, Prompt
from hybrid_rl.scorer_pool.loading import POLICY, LoadedReward, RewardSpec, load_reward
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring.calls import Call
from hybrid_rl.scoring.runners import Placed, Runners

_KEY = "reward"
Trial = tuple[str, Any, Mapping[str, Any]]
"""(answer, gold, further columns)."""


class Subject:
    """Scores single answers. What runs in scorer processes or in the reward worker runs in killable processes here.

    A reward on groups or batches is given each answer together with the reference, which it scores last.

    Args:
        args: of a class.
        columns: of the data, for every answer.
        search: folders against which the target is resolved.

    Raises:
        PluginError: it does not load, or asks for something that cannot be offered here.
    """

    def __init__(
        self,
        target: str,
        search: Sequence[str] = (),
        *,
        args: Mapping[str, Any] | None = None,
        columns: Mapping[str, Any] | None = None,
        timeout_s: float = 1.0,
        processes: int = 2,
    ) -> None:
        name = target.rpartition(":")[2] or target
        spec = RewardSpec(name, target, dict(args or {}), tuple(search))
        self.target = target
        self.reward: LoadedReward = load_reward(spec)
        if POLICY in self.reward.wanted:
            raise PluginError(
                f"rewards.{name}: '{target}' asks for the policy, which only a run has; try it with `hybrid-rl doctor "
                f"CONFIG`, which scores a few responses, or with `hybrid-rl train CONFIG run.steps=1`"
            )
        self._columns = dict(columns or {})
        self._timeout_s = timeout_s
        runs_in = {"async": "async", "actor": "inline"}.get(self.reward.runs_in, "pool")
        placed = Placed(spec, self.reward, runs_in)  # type: ignore[arg-type]
        self._runners = Runners({_KEY: placed}, processes=processes)

    @property
    def missing(self) -> list[str]:
        """Names that it requires and that are not offered."""
        return sorted(self.reward.required - self._offered("", "", {}).keys())

    @property
    def known_hacks(self) -> tuple[str, ...]:
        """What it says of itself that it pays (`hybrid_rl.scorer_pool.declare.pays_for`)."""
        return tuple(getattr(self.reward.function, "pays_for", ()))

    def ask(self, trials: Sequence[Trial]) -> list[Verdict]:
        """The verdict on each answer."""
        calls = [self._call(*trial) for trial in trials]
        return [verdicts[0] for verdicts in self._runners.run(calls)]

    def close(self) -> None:
        """End its processes."""
        self._runners.close()

    def _call(self, answer: str, gold: Any, columns: Mapping[str, Any]) -> Call:
        arguments = self.reward.chosen(self._offered(answer, gold, columns))
        if self.reward.per == "sample":
            return Call(_KEY, arguments, None, self._timeout_s)
        # The names that differ between the two; the rest of the prompt's row is the same.
        other = self.reward.chosen(self._offered(str(gold), gold, columns)) | {"index": 1}
        both = {name: [value, other.get(name, value)] for name, value in arguments.items()}
        return Call(_KEY, both, 2, self._timeout_s)

    def _offered(self, answer: str, gold: Any, columns: Mapping[str, Any]) -> dict[str, Any]:
        """What training offers, for a response that is its answer."""
        prompt = Prompt(
            id="test", source="test", task="test", messages=(Message(role="user", text="?"),), gold=str(gold)
        )
        return {
            "answer": answer,
            "thought": "",
            "text": answer,
            "ids": tuple(range(min(len(answer), 1000))),
            "mode": "test",
            "finish": "stop",
            "well_formed": True,
            "leaked": False,
            "wants_thought": False,
            "gold": gold,
            "task": "test",
            "prompt": prompt,
            "group": "test/test@0",
            "index": 0,
            "images": (),
            **self._columns,
            **columns,
        }

    def random_columns(self, random: Random) -> dict[str, Any]:
        """Values for required columns that no one has given, by their annotation."""
        parameters = inspect.signature(self.reward.function).parameters
        return {name: _random_value(random, str(parameters[name].annotation)) for name in self.missing}


def _random_value(random: Random, annotation: str) -> Any:
    if "bool" in annotation:
        return random.random() < 0.5
    if "int" in annotation:
        return random.choice((0, 1, 7, 100, 4096, random.randint(0, 10**6)))
    if "float" in annotation:
        return random.choice((0.0, 0.5, 1.0, random.uniform(-10, 1e4)))
    return random.choice(("", "a", "12"))


def says(verdict: Verdict) -> str:
    """A verdict in words."""
    if verdict.outcome is Outcome.OK:
        return f"scores {verdict.value:g}"
    return f"{verdict.outcome.value}, {verdict.reason}"
