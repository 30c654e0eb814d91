"""A reward's target -> a callable with the names it asks for. Light: scorer processes import this and little else."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from hybrid_rl.errors import PluginError
from hybrid_rl.plugins import check_call, load
from hybrid_rl.records import Score

POLICY = "policy"
"""The name under which a reward asks for the policy's log-probabilities."""

DEFAULT_TIMEOUT_S = 1.0
"""Limit of one response where neither the config nor the reward says another."""

RunsIn = Literal["pool", "inline", "async", "actor"]
Per = Literal["sample", "group", "batch"]


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
        runs_in: where it says it runs. Where it says nothing: `async` if it is, `inline` if it asks for the policy,
            else `pool`.
        per: what it scores in one call; beyond a sample, each name is a list with one entry a response.
        without_answer: what it counts as where it is not called for want of an answer; None abstains.
        timeout_s: seconds that it says it may take for one response.
        blames_reference: it says that it abstains on a plain answer only because of the reference.
    """

    target: str
    function: Callable[..., Any]
    wanted: frozenset[str]
    required: frozenset[str]
    wants_all: bool
    runs_in: RunsIn
    per: Per = "sample"
    without_answer: float | None = 0.0
    timeout_s: float = DEFAULT_TIMEOUT_S
    blames_reference: bool = False

    @property
    def needs_answer(self) -> bool:
        """Not called without a final answer: it requires one and does not look at the whole response."""
        return "answer" in self.required and not {"text", "well_formed"} & self.wanted

    def chosen(self, offered: Mapping[str, Any]) -> dict[str, Any]:
        """What of the offered names it is called with."""
        return dict(offered) if self.wants_all else {k: offered[k] for k in self.wanted & offered.keys()}


def load_reward(spec: RewardSpec) -> LoadedReward:
    """Load a reward; build it, if it is a class, with the folders of the search if it has a parameter `search`.

    Raises:
        PluginError: it does not load, or asks for something in a way that cannot be served.
    """
    name, target, args = spec.name, spec.target, dict(spec.args)
    reward = load(target, spec.search, group="hybrid_rl.rewards")
    if inspect.isclass(reward):
        if "search" in inspect.signature(reward).parameters:
            args.setdefault("search", spec.search)
        check_call(target, reward, (), args)
        try:
            reward = reward(**args)
        except (TypeError, ValueError) as error:
            raise PluginError(f"rewards.{name}: '{target}' refuses its args: {error}") from error
    elif args:
        raise PluginError(f"rewards.{name}: '{target}' is not a class, so it takes no args; remove them")
    if not callable(reward):
        raise PluginError(f"rewards.{name}: '{target}' is not callable; name a function or a class with __call__")
    parameters = list(inspect.signature(reward).parameters.values())
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise PluginError(
                f"rewards.{name}: '{target}' takes '{parameter}' by position; a reward is called by parameter name"
            )
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    wanted = frozenset(p.name for p in named)
    natural = "async" if is_async(reward) else "inline" if POLICY in wanted else "pool"
    loaded = LoadedReward(
        target=target,
        function=reward,
        wanted=wanted,
        required=frozenset(p.name for p in named if p.default is p.empty),
        wants_all=len(named) < len(parameters),
        runs_in=_declared(name, target, reward, "runs_in", natural, get_args(RunsIn)),
        per=_declared(name, target, reward, "per", "sample", get_args(Per)),
        without_answer=getattr(reward, "without_answer", 0.0),
        timeout_s=_declared_timeout_s(name, target, reward),
        blames_reference=_declared(name, target, reward, "blames_reference", False, (True, False)),
    )
    check_place(name, loaded, loaded.runs_in)
    return loaded


def check_place(name: str, reward: LoadedReward, runs_in: RunsIn) -> None:
    """Raise a PluginError if a reward cannot run in a place."""
    if is_async(reward.function) != (runs_in == "async"):
        kind = "async" if is_async(reward.function) else "not async"
        raise PluginError(f"rewards.{name}: '{reward.target}' is {kind}, so it cannot run in '{runs_in}'")
    if runs_in == "pool" and POLICY in reward.wanted:
        raise PluginError(
            f"rewards.{name}: '{reward.target}' asks for the policy, which scorer processes cannot reach; it runs "
            f"inline or as an actor"
        )


def is_async(function: Any) -> bool:
    """Calling it gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _declared(name: str, target: str, reward: Any, attribute: str, natural: Any, known: Sequence[Any]) -> Any:
    value = getattr(reward, attribute, natural)
    if value not in known:
        choices = " or ".join(map(str, known))
        raise PluginError(f"rewards.{name}: '{target}' declares {attribute} = {value!r}; it is {choices}")
    return value


def _declared_timeout_s(name: str, target: str, reward: Any) -> float:
    value = getattr(reward, "timeout_s", DEFAULT_TIMEOUT_S)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise PluginError(f"rewards.{name}: '{target}' declares timeout_s = {value!r}; it is a number above 0")
    return float(value)


def read_returned(returned: Any, count: int | None) -> list[Score | None]:
    """What a reward returned, one entry a response; None is an abstention.

    Args:
        count: responses of the call; None for a single one, which is returned bare and not in a list.

    Raises:
        ValueError: it is something else; the message goes on from "the reward".
    """
    if count is None:
        return [_score_or_none(returned)]
    if isinstance(returned, (str, bytes, Mapping)) or not isinstance(returned, Iterable):
        raise ValueError(f"returned {repr(returned)[:200]}; scoring {count} responses at once it returns a list")
    entries = list(returned)
    if len(entries) != count:
        raise ValueError(f"returned {len(entries)} entries for {count} responses; it returns one for each, in order")
    return [_score_or_none(entry) for entry in entries]


def _score_or_none(value: Any) -> Score | None:
    if isinstance(value, Score):
        parts = {str(name): _number(part) for name, part in value.parts.items()}
        return Score(value=_number(value.value), parts=parts)
    return None if value is None else Score(value=_number(value), parts={})


def _number(value: Any) -> float:
    # numpy's numbers count; a truth value is more likely a slip than a reward.
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"returned {repr(value)[:200]}; a reward returns a finite number, a Score, or None to abstain")
    return float(value)
