"""Admission: between scores and the update, which groups are trained on. Groups -> kept, or dropped with a reason.

The rule: the filter by standard deviation of RLPR (arXiv 2506.18254; the figures are those of its code). A group is
dropped if the standard deviation of its rewards is below beta times the moving average of the mean standard deviation
of a step's groups. The average begins as the plain mean of the steps from `ema_from_step` to the one before
`filter_from_step`; from then on it takes in (1 - ema) of each step's mean, after the step was filtered by what came
before it. Each mode has an average of its own, since modes differ in how much their rewards vary.

A dropped group keeps its place, its rewards and their deviation; its advantages are 0 and none of its samples is
trained. Groups with fewer than two scores have no standard deviation: they neither count nor are dropped.

With dynamic sampling (DAPO, arXiv 2503.14476, section 3.2) groups without signal are dropped too, those with fewer than
two scores among them: all that such a group would do is dilute the others. What was dropped is then replaced
(`hybrid_rl.algorithm.refill`). Where the groups of a draw are compared with each other, they stand or fall together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.config.admission import AdmissionConfig, StdFilterConfig

LOW_STD, NO_SIGNAL = "low_std", "no_signal"
DROP_REASONS = {
    LOW_STD: "the standard deviation of the rewards is below what is usual in the mode",
    NO_SIGNAL: "no response that is trained has an advantage",
}
"""Why a group may be dropped, with what that means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsualStd:
    """The standard deviation that is usual in a mode.

    Attributes:
        average: of the steps' means so far.
        steps: how many they are.
    """

    average: float
    steps: int


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """What admission remembers from step to step; part of every checkpoint.

    Attributes:
        usual_std: by mode; a mode that has not been seen yet is absent.
        spare_used: by source, how many of its spare prompts have replaced others.
    """

    usual_std: Mapping[str, UsualStd] = field(default_factory=dict)
    spare_used: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON, which keeps a float to the last bit."""
        usual = {mode: {"average": u.average, "steps": u.steps} for mode, u in self.usual_std.items()}
        return {"usual_std": usual, "spare_used": dict(self.spare_used)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> AdmissionState:
        usual = {mode: UsualStd(average=u["average"], steps=u["steps"]) for mode, u in found["usual_std"].items()}
        return cls(usual, found.get("spare_used", {}))  # earlier versions wrote none


def admit(
    groups: Sequence[Group], state: AdmissionState, config: AdmissionConfig, step: int, *, whole_draws: bool = False
) -> tuple[list[Group], AdmissionState]:
    """Decide on the groups of a step. What becomes of a group depends on it and the state, not on its company.

    Args:
        step: number of the training step, from 1.
        whole_draws: with dynamic sampling, the groups of one draw of a prompt are dropped together or not at all. They
            are adjacent.

    Returns:
        The groups in order, dropped ones marked so, and the state for the next step.
    """
    limits = _limits(state, config.std_filter, step)
    reasons = [_reason(group, limits, config) for group in groups]
    if whole_draws and config.dynamic_sampling is not None:
        draws = [
            [reason for _, reason in members]
            for _, members in groupby(zip(groups, reasons, strict=True), key=lambda pair: pair[0].place)
        ]
        reasons = [reason if all(draw) else "" for draw in draws for reason in draw]
    decided = [_dropped(group, reason) if reason else group for group, reason in zip(groups, reasons, strict=True)]
    return decided, _remember(groups, state, config.std_filter, step)


def _reason(group: Group, limits: Mapping[str, float], config: AdmissionConfig) -> str:
    """Why a group is to be dropped; empty if it is not."""
    if config.dynamic_sampling is not None and not any(s.trained and any(s.advantages) for s in group.samples):
        return NO_SIGNAL
    return LOW_STD if _is_below(group, limits) else ""


def _limits(state: AdmissionState, config: StdFilterConfig | None, step: int) -> dict[str, float]:
    if config is None or step < config.filter_from_step:
        return {}
    return {mode: config.beta * usual.average for mode, usual in state.usual_std.items()}


def _is_below(group: Group, limits: Mapping[str, float]) -> bool:
    return group.advantage.signal != "few_scored" and group.advantage.std < limits.get(group.mode, 0.0)


def _remember(
    groups: Sequence[Group], state: AdmissionState, config: StdFilterConfig | None, step: int
) -> AdmissionState:
    if config is None or step < config.ema_from_step:
        return state
    usual = dict(state.usual_std)
    for mode in dict.fromkeys(group.mode for group in groups):
        stds = [g.advantage.std for g in groups if g.mode == mode and g.advantage.signal != "few_scored"]
        mean = math.fsum(stds) / len(stds) if stds else math.nan
        if not math.isfinite(mean):
            continue
        before = usual.get(mode, UsualStd(average=0.0, steps=0))
        plain = step < config.filter_from_step or before.steps == 0
        share = 1 / (before.steps + 1) if plain else 1 - config.ema
        average = before.average + share * (mean - before.average)
        usual[mode] = UsualStd(average=average, steps=before.steps + 1)
    return replace(state, usual_std=usual)


def _dropped(group: Group, reason: str) -> Group:
    samples = tuple(
        replace(sample, advantages=(0.0,) * len(sample.advantages), trained=False) for sample in group.samples
    )
    advantage = replace(group.advantage, values=(0.0,) * len(samples))
    return replace(group, samples=samples, advantage=advantage, dropped=reason)
