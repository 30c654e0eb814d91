"""A reward's target -> a callable with the names it asks for. Light: scorer processes import this and little else."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hybrid_rl.errors import PluginError
from hybrid_rl.plugins import check_call, load

RunsIn = Literal["pool", "inline"]


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """What a scorer process needs to build a reward.

    Attributes:
        name: the part of the config, for messages.
    """

    name: str
    target: str
    args: Mapping[str, Any] = field(default_factory=dict)
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedReward:
    """A reward with the names it asks for.

    Attributes:
        wanted: names of its parameters.
        required: those without a default.
        wants_all: it has a `**` parameter.
        runs_in: where it says it runs; `pool` where it says nothing.
    """

    target: str
    function: Callable[..., Any]
    wanted: frozenset[str]
    required: frozenset[str]
    wants_all: bool
    runs_in: RunsIn

    @property
    def needs_answer(self) -> bool:
        """Not called without a final answer: it requires one and does not look at the whole response."""
        return "answer" in self.required and not {"text", "well_formed"} & self.wanted

    def chosen(self, offered: Mapping[str, Any]) -> dict[str, Any]:
        """What of the offered names it is called with."""
        return dict(offered) if self.wants_all else {k: offered[k] for k in self.wanted & offered.keys()}


def load_reward(spec: RewardSpec) -> LoadedReward:
    """Load a reward; build it, if it is a class.

    Raises:
        PluginError: it does not load, or asks for something in a way that cannot be served.
    """
    name, target, args = spec.name, spec.target, dict(spec.args)
    reward = load(target, spec.search, group="hybrid_rl.rewards")
    if inspect.isclass(reward):
        check_call(target, reward, (), args)
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
    runs_in: Any = getattr(reward, "runs_in", "pool")
    if runs_in not in ("pool", "inline"):
        raise PluginError(f"rewards.{name}: '{target}' declares runs_in = {runs_in!r}; it is 'pool' or 'inline'")
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    return LoadedReward(
        target=target,
        function=reward,
        wanted=frozenset(p.name for p in named),
        required=frozenset(p.name for p in named if p.default is p.empty),
        wants_all=len(named) < len(parameters),
        runs_in=runs_in,
    )


def number_or_none(value: Any) -> float | None:
    """The number that a reward returned; None is an abstention.

    Raises:
        ValueError: it is neither; numpy's numbers count, a truth value is more likely a slip than a reward.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"returned {repr(value)[:200]}; a reward returns a finite number, or None to abstain")
    return float(value)
