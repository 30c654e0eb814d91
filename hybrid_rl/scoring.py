"""Weighted rewards over one response. Knows no concrete reward: they are plug-ins, the built-in ones too."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import ConfigError, PluginError, RewardError
from hybrid_rl.records import Outcome, Prompt, Rollout, Score
from hybrid_rl.scorer_pool.loading import LoadedReward, RewardSpec, load_reward, number_or_none
from hybrid_rl.scorer_pool.pool import Case, ScorerPool

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
_GRAVITY = (Outcome.OK, Outcome.ABSTAIN, Outcome.TIMEOUT, Outcome.ERROR)


@dataclass(frozen=True, slots=True)
class _Result:
    """What a reward gave for one response; `error` holds the exception of a failure, `reason` the sentence."""

    outcome: Outcome
    value: float | None = None
    reason: str = ""
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the reward on one response, before it is scored."""

    name: str
    reward: LoadedReward
    rollout: Rollout

    @property
    def where(self) -> str:
        request = self.rollout.request
        return f"rewards.{self.name} ('{self.reward.target}') on response {request.index} to {request.group}"


class Scorer:
    """Scores rollouts with the rewards of a config.

    Args:
        config: rewards by part name.
        search: folders against which targets are resolved.
        wants_thought: by mode, whether it asks for a thought.
        processes: scorer processes that work at the same time, started when the first is needed.
        quarantine: file for inputs that have killed two scorers.

    Raises:
        PluginError: a reward does not load, or asks for something in a way that cannot be served.
    """

    def __init__(
        self,
        config: Mapping[str, RewardConfig],
        search: Sequence[str],
        wants_thought: Mapping[str, bool],
        *,
        processes: int = 2,
        quarantine: Path | None = None,
    ) -> None:
        self._config = dict(config)
        self._wants_thought = dict(wants_thought)
        specs = {
            (name, task): RewardSpec(name, target, part.args, tuple(search))
            for name, part in config.items()
            for task, target in part.targets.items()
        }
        self._rewards = {place: load_reward(spec) for place, spec in specs.items()}
        pooled = {
            _key(name, reward.target): specs[name, task]
            for (name, task), reward in self._rewards.items()
            if self._runs_in_pool(name, reward)
        }
        self._pool = ScorerPool(pooled, size=processes, quarantine=quarantine)
        self._has_pooled = bool(pooled)

    def begin(self) -> None:
        """Let the scorer processes import the rewards that run there, while the caller does something else."""
        if self._has_pooled:
            self._pool.begin()

    def check(self, prompt: Prompt) -> None:
        """Raise a PluginError if a reward asks for a name that neither we nor the prompt's columns offer."""
        offered = {*_OFFERED, *prompt.columns}
        for name in self._config:
            reward = self._reward(name, prompt.task)
            if reward is None and name == "accuracy":
                tasks = [str(task) for task in self._config[name].targets]
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
        """Score one rollout, see `score_all`."""
        return self.score_all([rollout])[0]

    def score_all(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """Score rollouts, in order.

        A part that does not apply to the task is left out of the sum, for the whole group alike. If an applicable part
        has no value, neither has the sample: rewards of one group are only comparable when they are sums of the same
        parts.

        Raises:
            RewardError: a reward raised, or returned something that is not a number, and its `max_error_share` is 0.
        """
        found: list[dict[str, _Result]] = [{} for _ in rollouts]
        pooled: list[tuple[int, _Part]] = []
        for place, rollout in enumerate(rollouts):
            for name in self._config:
                reward = self._reward(name, rollout.request.prompt.task)
                if reward is None:
                    continue
                part = _Part(name, reward, rollout)
                found[place][name] = _Result(Outcome.OK, 0.0)  # keeps the order of the config
                if rollout.response.answer is None and reward.needs_answer:
                    continue
                if self._runs_in_pool(name, reward):
                    pooled.append((place, part))
                else:
                    found[place][name] = self._judged(part, self._call(part))
        cases = [
            Case(_key(p.name, p.reward.target), self._wanted(p), self._config[p.name].timeout_s) for _, p in pooled
        ]
        for (place, part), verdict in zip(pooled, self._pool.run(cases), strict=True):
            found[place][part.name] = self._judged(part, _Result(verdict.outcome, verdict.value, verdict.reason))
        return [self._sum(results) for results in found]

    def _sum(self, results: Mapping[str, _Result]) -> Score:
        parts = {name: result.value for name, result in results.items() if result.value is not None}
        outcomes = {name: result.outcome for name, result in results.items()}
        errors = {name: result.reason for name, result in results.items() if result.outcome is Outcome.ERROR}
        # No part at all is an abstention too.
        gravest = max(outcomes.values(), key=_GRAVITY.index, default=Outcome.ABSTAIN)
        total = math.fsum(self._config[name].weight * value for name, value in parts.items())
        value = total if gravest is Outcome.OK else 0.0
        return Score(value=value, parts=parts, outcome=gravest, outcomes=outcomes, errors=errors)

    def _reward(self, name: str, task: str) -> LoadedReward | None:
        return self._rewards.get((name, None)) or self._rewards.get((name, task))

    def _runs_in_pool(self, name: str, reward: LoadedReward) -> bool:
        return (self._config[name].runs_in or reward.runs_in) == "pool"

    def _wanted(self, part: _Part) -> dict[str, Any]:
        rollout = part.rollout
        request, response = rollout.request, rollout.response
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
        return part.reward.chosen(offered)

    def _call(self, part: _Part) -> _Result:
        try:
            value = part.reward.function(**self._wanted(part))
        except Exception as error:
            return _Result(Outcome.ERROR, reason=f"failed: {type(error).__name__}: {error}", error=error)
        try:
            number = number_or_none(value)
        except ValueError as error:
            return _Result(Outcome.ERROR, reason=str(error))
        return _Result(Outcome.ABSTAIN if number is None else Outcome.OK, number)

    def _judged(self, part: _Part, result: _Result) -> _Result:
        """The result with the sample's name in its reason; an error is raised where none is allowed."""
        value = result.value
        if part.name == "accuracy" and value is not None and not 0 <= value <= 1:
            result = _Result(Outcome.ERROR, reason=f"returned {value!r}; the accuracy part lies between 0 and 1")
        if result.outcome is not Outcome.ERROR:
            return result
        sentence = f"{part.where} {result.reason}"
        if self._config[part.name].max_error_share == 0:
            raise RewardError(sentence) from result.error
        return _Result(Outcome.ERROR, reason=sentence)


def refuse_errors(scores: Sequence[Score], allowed: Mapping[str, float]) -> None:
    """Stop a run whose rewards fail on more of a batch than is allowed.

    Args:
        allowed: by part, the largest share of the responses it applies to.

    Raises:
        RewardError: with the first sample it failed on.
    """
    for name, share in allowed.items():
        applicable = [score for score in scores if name in score.outcomes]
        failed = [score.errors[name] for score in applicable if score.outcomes[name] is Outcome.ERROR]
        if len(failed) > share * len(applicable):
            raise RewardError(
                f"{failed[0]}; it failed on {len(failed)} of {len(applicable)} responses, more than "
                f"rewards.{name}.max_error_share = {share:g}"
            )


def _key(name: str, target: str) -> str:
    return f"{name} {target}"
