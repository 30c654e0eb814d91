"""Weighted rewards over responses. Knows no concrete reward: they are plug-ins, the built-in ones too."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from hybrid_rl.config import Config
from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import PluginError, RewardError, UserError
from hybrid_rl.protocols import PolicyHandle, RewardHost
from hybrid_rl.records import Outcome, Prompt, Rollout, Score
from hybrid_rl.scorer_pool.loading import POLICY, LoadedReward, RewardSpec, check_place, load_reward
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring.calls import Call
from hybrid_rl.scoring.choice import Choice
from hybrid_rl.scoring.offered import OFFERED, arguments_for
from hybrid_rl.scoring.runners import Placed, Runners
from hybrid_rl.scoring.stages import STAGES, Stage, stage_of
from hybrid_rl.scoring.summing import sum_up


@dataclass(frozen=True, slots=True)
class _Planned:
    """A call of a part, with the places of its responses in the batch."""

    name: str
    call: Call
    places: tuple[int, ...]


def place_rewards(config: Mapping[str, RewardConfig], search: Sequence[str]) -> dict[str, Placed]:
    """Load the rewards of a config, by key: the part's name, with what chooses the reward.

    Raises:
        PluginError: a reward does not load, or asks for something in a way that cannot be served.
    """
    found = {}
    for name, part in config.items():
        for choice, target in part.targets.items():
            spec = RewardSpec(name, target.target, target.args, tuple(search))
            reward = load_reward(spec)
            runs_in = part.runs_in or reward.runs_in
            check_place(name, reward, runs_in)
            found[_key(name, choice)] = Placed(spec, reward, runs_in, part.max_concurrency)
    return found


def actor_specs(config: Config) -> dict[str, RewardSpec]:
    """The rewards of a config that run in a worker of their own, by key."""
    placed = place_rewards(config.rewards, config.search)
    return {key: reward.spec for key, reward in placed.items() if reward.runs_in == "actor"}


def limits_s(config: Config) -> dict[str, float]:
    """Seconds that each part may take for one response; of several rewards that say so themselves, the shortest."""
    declared: dict[str, list[float]] = defaultdict(list)
    for placed in place_rewards(config.rewards, config.search).values():
        declared[placed.spec.name].append(placed.reward.timeout_s)
    return {name: part.timeout_s or min(declared[name]) for name, part in config.rewards.items()}


class Scorer:
    """Scores rollouts with the rewards of a config.

    Args:
        config: rewards by part name.
        search: folders against which targets are resolved.
        wants_thought: by mode, whether it asks for a thought.
        processes: scorer processes that work at the same time, started when the first is needed.
        quarantine: file for inputs that have killed two scorers.
        policy: for rewards that ask for it.
        hosts: workers of the rewards that run as actors, by key of `place_rewards`; without one they run here.

    Raises:
        PluginError: see `place_rewards`.
    """

    def __init__(
        self,
        config: Mapping[str, RewardConfig],
        search: Sequence[str],
        wants_thought: Mapping[str, bool],
        *,
        processes: int = 2,
        quarantine: Path | None = None,
        policy: PolicyHandle | None = None,
        hosts: Mapping[str, RewardHost] | None = None,
    ) -> None:
        self._config = dict(config)
        self._wants_thought = dict(wants_thought)
        self._policy = policy
        self._choices = {name: Choice(name, part, search) for name, part in config.items()}
        self._placed = place_rewards(config, search)
        self._runners = Runners(self._placed, processes=processes, quarantine=quarantine, hosts=hosts)

    def begin(self) -> None:
        """Let the scorer processes import the rewards that run there, while the caller does something else."""
        self._runners.begin()

    def check_services(self) -> None:
        """Ask each reward that can tell whether it can work in these modes, as one that needs a server."""
        for placed in self._placed.values():
            check = getattr(placed.reward.function, "check", None)
            if check is None:
                continue
            wanted = {"modes": tuple(self._wants_thought)} if "modes" in inspect.signature(check).parameters else {}
            try:
                check(**wanted)
            except UserError as error:
                part = f"rewards.{placed.spec.name}: "
                raise PluginError(part + str(error).removeprefix(part)) from error

    def asking_for(self, name: str) -> list[str]:
        """Parts of the reward that have a parameter of this name."""
        return list(dict.fromkeys(p.spec.name for p in self._placed.values() if name in p.reward.wanted))

    def check_without_policy(self) -> None:
        """Raise a PluginError if a reward asks for the policy, which goes on while its rollouts wait for a score."""
        for placed in self._placed.values():
            if POLICY in placed.reward.wanted:
                raise PluginError(
                    f"rewards.{placed.spec.name}: '{placed.reward.target}' asks for the policy that sampled the "
                    f"rollouts, which with train.async_steps is not there any more; set train.async_steps to 0"
                )

    def check(self, prompt: Prompt) -> None:
        """Raise a PluginError if a reward asks for a name that neither we nor the prompt's columns offer."""
        offered = {*OFFERED, *prompt.columns}
        for name in self._config:
            reward = self._reward(name, prompt)
            if reward is None:
                if name == "accuracy":
                    raise self._choices[name].refusal(prompt)
                continue
            missing = sorted(reward.required - offered)
            if missing:
                raise PluginError(
                    f"rewards.{name}: '{reward.target}' asks for '{missing[0]}', which is neither a column of source "
                    f"{prompt.source} nor one of {', '.join(OFFERED)}"
                )

    def reads_reference(self, prompt: Prompt) -> bool:
        """Whether a reward has the policy read the reference answer to a prompt."""
        rewards = [self._reward(name, prompt) for name in self._config]
        return any({POLICY, "gold"} <= reward.wanted for reward in rewards if reward is not None)

    def blames_reference(self, prompt: Prompt) -> bool:
        """Whether a reward of the prompt that can be asked anywhere says that it abstains only for its reference."""
        keys = [_key(name, self._choices[name].key(prompt)) for name in self._config]
        found = [self._placed[key] for key in keys if key in self._placed]
        return any(placed.reward.blames_reference and placed.runs_in in ("pool", "inline") for placed in found)

    def score(self, rollout: Rollout) -> Score:
        """Score one rollout, see `score_all`."""
        return self.score_all([rollout])[0]

    def score_all(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """Score rollouts, in order; those of a group are adjacent.

        A part that does not apply to the task is left out of the sum, for the whole group alike. If an applicable part
        has no value, neither has the sample: rewards of one group are only comparable when they are sums of the same
        parts. A part that is standardised then adds nothing instead.

        Raises:
            RewardError: a reward raised, or returned something that is not a number, and its `max_error_share` is 0.
        """
        return sum_up(self._config, rollouts, self.judge(rollouts))

    def judge(self, rollouts: Sequence[Rollout], stages: frozenset[Stage] = STAGES) -> list[dict[str, Verdict]]:
        """The verdict of each part on each rollout, in order, by those rewards that are called at these stages.

        Raises:
            RewardError: see `score_all`.
        """
        found: list[dict[str, Verdict]] = [{} for _ in rollouts]
        planned = [call for name in self._config for call in self._plan(name, rollouts, found, stages)]
        for plan, verdicts in zip(planned, self._runners.run([p.call for p in planned]), strict=True):
            for place, verdict in zip(plan.places, verdicts, strict=True):
                found[place][plan.name] = self._judged(plan.name, rollouts[place], verdict)
        return found

    def _plan(
        self, name: str, rollouts: Sequence[Rollout], found: Sequence[dict[str, Verdict]], stages: frozenset[Stage]
    ) -> list[_Planned]:
        """The calls of a part; responses for which there is nothing to call get their verdict here."""
        places: dict[str, list[int]] = defaultdict(list)
        for place, rollout in enumerate(rollouts):
            key = _key(name, self._choices[name].key(rollout.request.prompt))
            if key not in self._placed or stage_of(self._placed[key].reward) not in stages:
                continue
            reward = self._placed[key].reward
            if rollout.response.answer is None and reward.needs_answer:
                value = reward.without_answer
                outcome = Outcome.ABSTAIN if value is None else Outcome.OK
                found[place][name] = Verdict(outcome, value, reason="there is no final answer")
            else:
                places[key].append(place)
        return [
            self._planned(name, key, bundle, rollouts)
            for key, chosen in places.items()
            for bundle in _bundles(self._placed[key].reward, chosen, rollouts)
        ]

    def _planned(self, name: str, key: str, bundle: Sequence[int], rollouts: Sequence[Rollout]) -> _Planned:
        reward = self._placed[key].reward
        if POLICY in reward.required and self._policy is None:
            raise PluginError(f"rewards.{name}: '{reward.target}' asks for the policy, which is only there in a run")
        arguments = arguments_for(reward, [rollouts[place] for place in bundle], self._wants_thought, self._policy)
        count = None if reward.per == "sample" else len(bundle)
        each_s = self._config[name].timeout_s or reward.timeout_s
        return _Planned(name, Call(key, arguments, count, each_s * len(bundle)), tuple(bundle))

    def _reward(self, name: str, prompt: Prompt) -> LoadedReward | None:
        placed = self._placed.get(_key(name, self._choices[name].key(prompt)))
        return placed.reward if placed else None

    def _judged(self, name: str, rollout: Rollout, verdict: Verdict) -> Verdict:
        """The verdict with the sample's name in its reason; an error is raised where none is allowed."""
        value = verdict.value
        if name == "accuracy" and value is not None and not 0 <= value <= 1:
            verdict = Verdict(Outcome.ERROR, reason=f"returned {value!r}; the accuracy part lies between 0 and 1")
        if verdict.outcome is not Outcome.ERROR:
            return verdict
        request = rollout.request
        target = getattr(self._reward(name, request.prompt), "target", "")
        sentence = f"rewards.{name} ('{target}') on response {request.index} to {request.group} {verdict.reason}"
        if self._config[name].max_error_share == 0:
            raise RewardError(sentence) from verdict.cause
        return replace(verdict, reason=sentence)


def refuse_errors(scores: Sequence[Score], allowed: Mapping[str, float]) -> None:
    """Raise if a reward failed on a larger share of the responses it applies to than is allowed for it.

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


def _key(name: str, choice: str | None) -> str:
    return name if choice is None else f"{name} for {choice}"


def _bundles(reward: LoadedReward, places: Sequence[int], rollouts: Sequence[Rollout]) -> list[list[int]]:
    """The responses of each call."""
    if reward.per == "batch":
        return [list(places)]
    if reward.per == "sample":
        return [[place] for place in places]
    return [list(members) for _, members in groupby(places, key=lambda place: rollouts[place].request.group)]
