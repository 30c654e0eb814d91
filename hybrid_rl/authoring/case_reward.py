"""A reward as a labelled case calls it. Runs in scorer processes, the search for the final answer too."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hybrid_rl.errors import PluginError
from hybrid_rl.plugins import load
from hybrid_rl.scorer_pool.loading import POLICY, LoadedReward, RewardSpec, load_reward, read_returned
from hybrid_rl.scorer_pool.warming import warm

FINAL_ANSWER = "rewards.final_answer:final_answer"
"""Finds the final answer in a whole response: `(text) -> str | None`."""


class CaseReward:
    """Calls a reward with what a case has: `text`, `answer`, `gold`, `choices`, and its params by name.

    A reward that is a class is built with those params that it takes, once for each set of them.

    Args:
        target: the reward.
        extracted: predictions are whole responses; `answer` is the final answer in them, and a response without one
            scores 0 where the reward would not be called in training either.
    """

    def __init__(self, target: str, search: Sequence[str] = (), extracted: bool = False) -> None:
        self._target = target
        self._search = tuple(search)
        self._final_answer = load(FINAL_ANSWER, search) if extracted else None
        self._built: dict[str, LoadedReward] = {}
        reward = load(target, search, group="hybrid_rl.rewards")
        self._takes = frozenset(inspect.signature(reward).parameters) if inspect.isclass(reward) else frozenset()
        self._first = reward
        self._refuse_policy()

    def warm_up(self) -> None:
        """Warm the reward itself, and what finds the final answer."""
        for part in (self._first, self._final_answer):
            if part is not None:
                warm(part)

    def __call__(self, pred: Any, gold: Any, choices: Sequence[str] | None, params: Mapping[str, Any]) -> Any:
        answer = pred
        if self._final_answer is not None:
            answer = self._final_answer(pred)
        reward = self._reward({name: value for name, value in params.items() if name in self._takes})
        if answer is None and pred is not None and reward.needs_answer:
            return 0.0
        offered: dict[str, Any] = {**params, "text": pred, "answer": answer, "gold": gold}
        if choices is not None:
            offered["choices"] = list(choices)
        arguments = reward.chosen(offered)
        if reward.per == "sample":
            return _awaited(reward.function(**arguments))
        returned = _awaited(reward.function(**{name: [value] for name, value in arguments.items()}))
        (score,) = read_returned(returned, 1)
        return score

    def _refuse_policy(self) -> None:
        function = self._first.__call__ if inspect.isclass(self._first) else self._first
        if POLICY in inspect.signature(function).parameters:
            raise PluginError(
                f"'{self._target}' asks for the policy, which only a run has; labelled cases cannot ask it"
            )

    def _reward(self, args: Mapping[str, Any]) -> LoadedReward:
        key = json.dumps(dict(args), sort_keys=True, default=repr)
        if key not in self._built:
            self._built[key] = load_reward(RewardSpec(self._target, self._target, args, self._search))
        return self._built[key]


def _awaited(returned: Any) -> Any:
    """What a reward returned; of an async one, what its coroutine gives."""
    return asyncio.run(returned) if inspect.iscoroutine(returned) else returned
