"""Weighted rewards over one response. Knows no concrete reward: they are plug-ins, the built-in ones too."""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import ConfigError, PluginError, RewardError
from hybrid_rl.plugins import check_call, load
from hybrid_rl.records import Outcome, Prompt, Rollout, Score

_OFFERED = (
    "answer",
    "thought",
    "text",
    "ids",
    "mode",
    "finish",
    "well_formed",
    "leaked",
    "wants_thought",
    "gold",
    "task",
    "prompt",
)
"""What a reward may ask for by parameter name, beside the columns of the data row."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A reward with the names it asks for; `required` ones have no default, `wants_all` has a `**` parameter."""

    target: str
    function: Callable[..., Any]
    wanted: frozenset[str]
    required: frozenset[str]
    needs_answer: bool
    wants_all: bool


class Scorer:
    """Scores rollouts with the rewards of a config.

    Args:
        config: rewards by part name.
        search: folders against which targets are resolved.
        wants_thought: by mode, whether it asks for a thought.

    Raises:
        PluginError: a reward does not load, or asks for something in a way that cannot be served.
    """

    def __init__(
        self, config: Mapping[str, RewardConfig], search: Sequence[str], wants_thought: Mapping[str, bool]
    ) -> None:
        self._weights = {name: part.weight for name, part in config.items()}
        self._wants_thought = dict(wants_thought)
        self._rewards: dict[str, dict[str | None, _Loaded]] = {
            name: {task: _load(name, target, part.args, search) for task, target in part.targets.items()}
            for name, part in config.items()
        }

    def check(self, prompt: Prompt) -> None:
        """Raise a PluginError if a reward asks for a name that neither we nor the prompt's columns offer."""
        offered = {*_OFFERED, *prompt.columns}
        for name in self._weights:
            reward = self._reward(name, prompt.task)
            if reward is None and name == "accuracy":
                tasks = [str(task) for task in self._rewards[name]]
                near = difflib.get_close_matches(prompt.task, tasks, n=1)
                hint = f"did you mean '{near[0]}' to be it?" if near else f"by_task has {', '.join(tasks)}"
                raise ConfigError(
                    f"rewards.accuracy has no reward for task '{prompt.task}' of source {prompt.source}; {hint}"
                )
            missing = sorted(reward.required - offered) if reward else []
            if reward and missing:
                raise PluginError(
                    f"rewards.{name}: '{reward.target}' asks for '{missing[0]}', which is neither a column of source "
                    f"{prompt.source} nor one of {', '.join(_OFFERED)}"
                )

    def score(self, rollout: Rollout) -> Score:
        """Score one rollout.

        A part that does not apply to the task is left out of the sum, for the whole group alike. If an applicable part
        abstains, so does the sample: rewards of one group are only comparable when they are sums of the same parts.

        Raises:
            RewardError: a reward raised, or returned something that is not a number; never swallowed.
        """
        parts: dict[str, float] = {}
        abstained = False
        for name in self._weights:
            reward = self._reward(name, rollout.request.prompt.task)
            if reward is None:
                continue
            value = self._call(name, reward, rollout)
            if value is None:
                abstained = True
            else:
                parts[name] = value
        if abstained or not parts:
            return Score(value=0.0, parts=parts, outcome=Outcome.ABSTAIN)
        total = math.fsum(self._weights[name] * value for name, value in parts.items())
        return Score(value=total, parts=parts, outcome=Outcome.OK)

    def _reward(self, name: str, task: str) -> _Loaded | None:
        by_task = self._rewards[name]
        return by_task[None] if None in by_task else by_task.get(task)

    def _call(self, name: str, reward: _Loaded, rollout: Rollout) -> float | None:
        request, response = rollout.request, rollout.response
        if response.answer is None and reward.needs_answer:
            return 0.0
        offered: dict[str, Any] = {
            **request.prompt.columns,
            "answer": response.answer,
            "thought": response.thought,
            "text": response.text,
            "ids": rollout.generation.ids,
            "mode": request.mode,
            "finish": rollout.generation.finish.value,
            "well_formed": rollout.well_formed,
            "leaked": response.leaked,
            "wants_thought": self._wants_thought[request.mode],
            "gold": request.prompt.gold,
            "task": request.prompt.task,
            "prompt": request.prompt,
        }
        where = f"rewards.{name} ('{reward.target}') on response {request.index} to {request.group}"
        try:
            wanted = offered if reward.wants_all else {key: offered[key] for key in reward.wanted & offered.keys()}
            value = reward.function(**wanted)
        except Exception as error:
            raise RewardError(f"{where} failed: {type(error).__name__}: {error}") from error
        if value is None:
            return None
        # numpy's numbers count; a truth value is more likely a slip than a reward.
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise RewardError(f"{where} returned {value!r}; a reward returns a finite number, or None to abstain")
        number = float(value)
        if name == "accuracy" and not 0 <= number <= 1:
            raise RewardError(f"{where} returned {value!r}; the accuracy part lies between 0 and 1")
        return number


def _load(name: str, target: str, args: Mapping[str, Any], search: Sequence[str]) -> _Loaded:
    reward = load(target, search, group="hybrid_rl.rewards")
    if inspect.isclass(reward):
        check_call(target, reward, (), dict(args))
        try:
            reward = reward(**args)
        except (TypeError, ValueError) as error:
            raise PluginError(f"rewards.{name}: '{target}' refuses its args: {error}") from error
    elif args:
        raise PluginError(f"rewards.{name}: '{target}' is not a class, so it takes no args; remove them")
    if not callable(reward):
        raise PluginError(f"rewards.{name}: '{target}' is not callable; name a function or a class with __call__")
    if inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(getattr(reward, "__call__", None)):  # noqa: B004
        raise PluginError(f"rewards.{name}: '{target}' is async; rewards are plain functions")
    parameters = list(inspect.signature(reward).parameters.values())
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise PluginError(
                f"rewards.{name}: '{target}' takes '{parameter}' by position; a reward is called by parameter name"
            )
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    takes_all = len(named) < len(parameters)
    wanted = {p.name for p in named}
    required = {p.name for p in named if p.default is p.empty}
    needs_answer = "answer" in required and not {"text", "well_formed"} & wanted
    return _Loaded(target, reward, frozenset(wanted), frozenset(required), needs_answer, takes_all)
