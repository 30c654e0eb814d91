"""Rollouts and scores -> groups of samples with advantages, as the config says.

In this order: a truncated response loses its penalty, where its mode penalises; the baseline compares what is
comparable and the estimator turns rewards into advantages, over all scored responses; responses without a score, and
truncated ones where their mode masks, are taken out of the loss. So masking changes the advantage of no other response.

Aggregation of the parts of the reward (TRL's names): `sum_then_normalize` is GRPO on the weighted sum.
`normalize_then_sum` is GDPO (arXiv 2601.05242, section 3): with z_k the advantages of part k in its group,

    R = sum_k w_k z_k,   A = (R - mean of the step) / (std of the step + eps)

over the scored responses of the whole step but for dropped groups, as TRL computes it; verl takes the last mean and std
over tokens instead.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from hybrid_rl.algorithm.advantage import Group, GroupAdvantage, Signal, group_advantages
from hybrid_rl.algorithm.baselines import Member, Progress, load_baseline
from hybrid_rl.algorithm.estimators import load_estimator
from hybrid_rl.config import Config
from hybrid_rl.config.modes import KindConfig
from hybrid_rl.protocols import Baseline, Estimator, Thought
from hybrid_rl.records import Finish, Outcome, Rollout, Sample, Score

Scored = tuple[Rollout, Score]
_PENALTY = "truncation penalty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Makes the groups of a step.

    Attributes:
        part_weights: weight of each part of the reward, for `normalize_then_sum`; None for the sum.
        kinds: the modes.
        thoughts: by mode, what its prompt leaves: an open thought, a closed one, or the choice.
        eps, min_std: see `group_advantages`.
        mode_tokens: the token that chooses a mode is trained, in modes that have one.
        total_steps: of the run.
        whole_draws: the groups of a draw belong together, because they are compared with each other, or because they
            are single responses of a draw in several modes.
    """

    estimator: Estimator
    baseline: Baseline
    part_weights: Mapping[str, float] | None
    kinds: Mapping[str, KindConfig]
    thoughts: Mapping[str, Thought]
    eps: float
    min_std: float
    mode_tokens: bool
    total_steps: int
    whole_draws: bool = False

    def groups(
        self,
        rollouts: Sequence[Rollout],
        scores: Sequence[Score],
        step: int,
        *,
        left_out: Container[str] = frozenset(),
    ) -> list[Group]:
        """Groups in the order of the rollouts.

        Args:
            rollouts: responses of a group are adjacent, and so are the groups of one draw of a prompt.
            step: from 1.
            left_out: names of groups that do not count where a scheme looks at the whole step.
        """
        pairs = zip(rollouts, scores, strict=True)
        split = [list(members) for _, members in groupby(pairs, key=lambda pair: pair[0].request.group)]
        at = Progress(step=step, total=self.total_steps)
        if self.part_weights is None:
            advantages = self._compare(split, None, at)
        else:
            advantages = self._normalize_then_sum(split, self.part_weights, at, left_out)
        return [
            Group(samples=tuple(self._samples(members, advantage)), advantage=advantage)
            for members, advantage in zip(split, advantages, strict=True)
        ]

    def _compare(self, split: Sequence[Sequence[Scored]], part: str | None, at: Progress) -> list[GroupAdvantage]:
        """The baseline's advantages of each group, for one part of the reward or for all of it."""
        estimate = partial(self.estimator.advantages, eps=self.eps, min_std=self.min_std)
        result: list[GroupAdvantage] = []
        for _, family in groupby(split, key=_draw):
            members = [[self._member(rollout, score, part) for rollout, score in group] for group in family]
            result += self.baseline.advantages(members, estimate, at)
        return result

    def _member(self, rollout: Rollout, score: Score, part: str | None) -> Member:
        mode, response = rollout.request.mode, rollout.response
        free = self.thoughts[mode] == "free"
        chosen = response.chosen or ("thought" if response.thought else "no thought")
        return Member(
            mode=mode,
            format=chosen if free else mode,
            thinks=bool(response.thought) if free else self.thoughts[mode] == "opened",
            reward=self._reward(rollout, score, part),
        )

    def _reward(self, rollout: Rollout, score: Score, part: str | None) -> float | None:
        if score.outcome is not Outcome.OK:
            return None
        kind = self.kinds[rollout.request.mode]
        lost = kind.truncation_penalty if kind.truncation == "penalise" and _truncated(rollout) else 0.0
        if part == _PENALTY:
            return -lost
        return score.value - lost if part is None else score.parts.get(part)

    def _normalize_then_sum(
        self,
        split: Sequence[Sequence[Scored]],
        weights: Mapping[str, float],
        at: Progress,
        left_out: Container[str],
    ) -> list[GroupAdvantage]:
        if any(kind.truncation == "penalise" for kind in self.kinds.values()):
            weights = {**weights, _PENALTY: 1.0}
        whole = self._compare(split, None, at)
        parts = {name: self._compare(split, name, at) for name in weights}
        sums = [
            [math.fsum(weights[name] * parts[name][g].values[i] for name in weights) for i in range(len(members))]
            for g, members in enumerate(split)
        ]
        scored = [
            value
            for values, members in zip(sums, split, strict=True)
            for value, (rollout, score) in zip(values, members, strict=True)
            if score.outcome is Outcome.OK and rollout.request.group not in left_out
        ]
        mean = math.fsum(scored) / len(scored) if scored else 0.0
        std = group_advantages(scored, eps=self.eps, min_std=0.0).std
        result = []
        for g, (members, values) in enumerate(zip(split, sums, strict=True)):
            if any(parts[name][g].signal == "ok" for name in weights):
                ready = tuple(
                    (value - mean) / (std + self.eps) if score.outcome is Outcome.OK else 0.0
                    for value, (_, score) in zip(values, members, strict=True)
                )
                result.append(replace(whole[g], values=ready, signal="ok"))
            else:
                signal: Signal = "few_scored" if whole[g].signal == "few_scored" else "zero_variance"
                result.append(replace(whole[g], values=(0.0,) * len(members), signal=signal))
        return result

    def _samples(self, members: Sequence[Scored], advantage: GroupAdvantage) -> list[Sample]:
        own = advantage.mode_token_values or (0.0,) * len(members)
        samples = []
        for (rollout, score), value, choice in zip(members, advantage.values, own, strict=True):
            ids, kind = rollout.generation.ids, self.kinds[rollout.request.mode]
            free = self.thoughts[rollout.request.mode] == "free"
            mode_token = self.mode_tokens and bool(ids) and (free or bool(kind.mode_token))
            values = (value,) * len(ids)
            masked = kind.truncation == "mask" and _truncated(rollout)
            samples.append(
                Sample(
                    rollout=rollout,
                    score=score,
                    advantages=(value + choice, *values[1:]) if mode_token else values,
                    trained=score.outcome is Outcome.OK and not masked,
                    mode_token=mode_token,
                )
            )
        return samples


def make_grouping(config: Config, thoughts: Mapping[str, Thought]) -> Grouping:
    """The grouping of a config.

    Args:
        thoughts: `ChatFormat.thought` of each mode.
    """
    train = config.train
    baseline = load_baseline(config)
    weights = {name: part.weight for name, part in config.rewards.items()}
    return Grouping(
        estimator=load_estimator(train.estimator, config.search),
        baseline=baseline,
        part_weights=weights if train.aggregate == "normalize_then_sum" else None,
        kinds=config.modes.kinds,
        thoughts=thoughts,
        eps=train.advantage_eps,
        min_std=train.min_reward_std,
        mode_tokens=baseline.needs_mode_token or config.modes.forced_tokens == "importance",
        total_steps=config.run.steps,
        whole_draws=baseline.joint or baseline.paired or config.modes.assign == "per_rollout",
    )


def _truncated(rollout: Rollout) -> bool:
    return rollout.generation.finish is Finish.LENGTH


def _draw(members: Sequence[Scored]) -> tuple[str, str, int]:
    request = members[0][0].request
    return request.prompt.source, request.prompt.id, request.place
