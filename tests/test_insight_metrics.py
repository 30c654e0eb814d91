"""The figures of a step say what was asked for and what was got, and nothing where nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from hybrid_rl.algorithm.advantage import Group, GroupAdvantage
from hybrid_rl.config.alarms import AlarmsConfig
from hybrid_rl.insight.alarms import AlarmWatch
from hybrid_rl.insight.metrics import step_metrics
from hybrid_rl.records import Rollout, Sample, Score
from hybrid_rl.updates.grpo import UpdateFigures

MakeRollout = Callable[..., Rollout]


def group(rollouts: list[Rollout], *, dropped: str = "", mode_token: bool = False) -> Group:
    samples = tuple(
        Sample(
            rollout=rollout, score=Score(value=1.0), advantages=(0.0,) * len(rollout.generation.ids),
            trained=not dropped, mode_token=mode_token,
        )
        for rollout in rollouts
    )  # fmt: skip
    advantage = GroupAdvantage(values=(0.0,) * len(samples), std=0.0, signal="zero_variance")
    return Group(samples=samples, advantage=advantage, dropped=dropped)


def trained_on(**tokens: int) -> UpdateFigures:
    figures = UpdateFigures()
    for mode, count in tokens.items():
        figures.tokens[mode], figures.entropy[mode] = count, 0.5 * count
    return figures


def test_a_mode_that_nothing_was_trained_in_has_no_entropy_and_has_not_collapsed(make_rollout: MakeRollout) -> None:
    """All its groups were dropped, because the mode is right every time: that is no loss of entropy."""
    watch = AlarmWatch(AlarmsConfig.model_validate({"entropy": {"window_steps": 1}}), ["short", "long"])
    kept = group([make_rollout(mode="long")])
    first = step_metrics([group([make_rollout()]), kept], trained_on(short=3, long=3), None, {}, step=1, version=1)
    assert first["entropy/short"] == pytest.approx(0.5)
    later = step_metrics(
        [group([make_rollout()], dropped="no_signal"), kept], trained_on(long=3), [[(0.0,) * 3]] * 2, {},
        step=2, version=2,
    )  # fmt: skip
    assert "clip_fraction/long" in later and "kl/long" in later
    assert not {"entropy/short", "clip_fraction/short", "kl/short"} & later.keys()
    assert [alarm.name for row in (first, later) for alarm in watch.step(row)] == []


def test_responses_that_are_trained_on_are_counted_and_a_mode_without_any_has_the_share_0(
    make_rollout: MakeRollout,
) -> None:
    """Requested and realised ratio stand beside each other from the first step of a schedule on."""
    groups = [group([make_rollout()] * 4), group([make_rollout()] * 2), group([make_rollout()] * 4, dropped="low_std")]
    asked = {"short": 1.0, "long": 0.0}
    found = step_metrics(groups, trained_on(short=18), None, {}, step=1, version=1, shares=asked)
    assert (found["prompts/short"], found["responses/short"]) == (3, 6)
    assert (found["share/short"], found["share_asked/short"]) == (1.0, 1.0)
    assert (found["share/long"], found["share_asked/long"]) == (0.0, 0.0)
    assert "reward/long" not in found


def test_a_forced_mode_token_has_no_part_in_the_distance_to_the_reference(make_rollout: MakeRollout) -> None:
    """The sampler gave it no probability: what stands there in its place is not compared with anything."""
    plain = make_rollout(logprobs=(-1.0, -1.0, -1.0))
    forced = replace(
        plain, generation=replace(plain.generation, logprobs=(0.0, -1.0, -1.0), sampled=(False, True, True))
    )
    reference = [[(-9.0, -1.5, -1.5)]]
    found = step_metrics([group([forced], mode_token=True)], trained_on(short=3), reference, {}, step=1, version=1)
    assert found["kl/short"] == pytest.approx(math.exp(-0.5) + 0.5 - 1)
