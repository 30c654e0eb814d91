"""Group advantages: worked by hand, equal to TRL's and verl's, and honest about missing scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import make_groups
from hypothesis import given
from hypothesis import strategies as st

from hybrid_rl.algorithm.advantage import group_advantages
from hybrid_rl.records import Outcome, Rollout, Score

rewards_strategy = st.lists(st.floats(-5, 5, allow_nan=False), min_size=2, max_size=16)


def test_worked_example() -> None:
    # rewards 1, 0, 0, 1: mean 0.5; unbiased variance 4 * 0.25 / 3 = 1/3, std 0.57735; 0.5 / (0.57735 + 0.0001)
    result = group_advantages([1, 0, 0, 1], eps=1e-4, min_std=1e-6)
    assert result.signal == "ok"
    assert result.values == pytest.approx([0.865876, -0.865876, -0.865876, 0.865876], abs=1e-6)


@given(rewards_strategy)
def test_equals_verl(rewards: list[float]) -> None:
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    ours = group_advantages(rewards, eps=1e-6, min_std=0.0)
    theirs, _ = core_algos.compute_grpo_outcome_advantage(
        token_level_rewards=torch.tensor(rewards, dtype=torch.float64)[:, None],
        response_mask=torch.ones(len(rewards), 1, dtype=torch.float64),
        index=np.array(["one"] * len(rewards), dtype=object),
        epsilon=1e-6,
    )
    # verl computes in float32; a tiny variance is divided by its own rounding error there.
    if ours.std > 1e-2:
        assert ours.values == pytest.approx(theirs[:, 0].tolist(), abs=1e-3, rel=1e-3)


def test_equals_trl() -> None:
    """TRL's own masked standard deviation, on a group with an abstention (None there, NaN inside)."""
    trl_utils = pytest.importorskip("trl.trainer.utils")
    rewards = [0.3, None, 1.2, 0.0, 0.7]
    tensor = torch.tensor([float("nan") if r is None else r for r in rewards])
    theirs = (tensor - torch.nanmean(tensor)) / (trl_utils.nanstd(tensor) + 1e-4)
    ours = group_advantages(rewards, eps=1e-4, min_std=1e-6)
    assert ours.values == pytest.approx(torch.nan_to_num(theirs).tolist(), abs=1e-5)


@given(st.lists(st.one_of(st.none(), st.floats(-5, 5, allow_nan=False)), min_size=2, max_size=16))
def test_advantages_sum_to_zero_and_abstentions_get_none(rewards: list[float | None]) -> None:
    result = group_advantages(rewards, eps=1e-4, min_std=1e-6)
    assert sum(result.values) == pytest.approx(0, abs=1e-6)
    assert all(value == 0 for value, reward in zip(result.values, rewards, strict=True) if reward is None)


@given(rewards_strategy, st.integers(0, 5))
def test_an_abstention_changes_nobody_elses_advantage(rewards: list[float], place: int) -> None:
    place = min(place, len(rewards))
    without = group_advantages(rewards, eps=1e-4, min_std=1e-6)
    with_one = group_advantages([*rewards[:place], None, *rewards[place:]], eps=1e-4, min_std=1e-6)
    kept = [*with_one.values[:place], *with_one.values[place + 1 :]]
    assert kept == pytest.approx(list(without.values))


@pytest.mark.parametrize(
    ("rewards", "signal"),
    [([1, 1, 1], "zero_variance"), ([1, None, None], "few_scored"), ([None, None], "few_scored")],
)
def test_groups_without_signal_get_zero_and_say_why(rewards: list[float | None], signal: str) -> None:
    result = group_advantages(rewards, eps=1e-4, min_std=1e-6)
    assert set(result.values) == {0.0}
    assert result.signal == signal


def test_a_better_response_gets_the_larger_advantage() -> None:
    values = group_advantages([0.1, 0.9, 0.5], eps=1e-4, min_std=1e-6).values
    assert values[1] > values[2] > values[0]


def test_an_unscored_response_is_not_trained_on(make_rollout: Callable[..., Rollout]) -> None:
    rollouts = [make_rollout(group="a"), make_rollout(group="a"), make_rollout(group="a"), make_rollout(group="b")]
    scores = [
        Score(value=1.0, parts={}, outcome=Outcome.OK),
        Score(value=0.0, parts={}, outcome=Outcome.ABSTAIN),
        Score(value=0.0, parts={}, outcome=Outcome.OK),
        Score(value=1.0, parts={}, outcome=Outcome.OK),
    ]
    first, second = make_groups(rollouts, scores, eps=1e-4, min_std=1e-6)
    assert [sample.trained for sample in first.samples] == [True, False, True]
    assert first.samples[1].loss_mask == (False, False, False)
    assert first.samples[0].advantages == (first.advantage.values[0],) * 3
    assert second.advantage.signal == "few_scored"
