"""Admission: RLPR's filter by the standard deviation of a group's rewards, worked by hand, and its state."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from conftest import make_groups
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_rl.algorithm.admission import AdmissionState, admit
from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.normalizer import Normalizer, token_weights
from hybrid_rl.config.admission import AdmissionConfig, StdFilterConfig
from hybrid_rl.records import Outcome, Rollout, Score

ON = AdmissionConfig(std_filter=StdFilterConfig())


@pytest.fixture
def group_of(make_rollout: Callable[..., Rollout]) -> Callable[..., Group]:
    """A group of two whose rewards have a given standard deviation: s / sqrt(2) above and below a half."""

    def make(std: float, *, mode: str = "long", scored: bool = True) -> Group:
        rollouts = [make_rollout(mode=mode) for _ in range(2)]
        outcome = Outcome.OK if scored else Outcome.ABSTAIN
        values = (0.5 - std / 2**0.5, 0.5 + std / 2**0.5)
        scores = [Score(value=value, parts={}, outcome=outcome) for value in values]
        return make_groups(rollouts, scores, eps=1e-4, min_std=1e-6)[0]

    return make


def run(steps: Sequence[Sequence[Group]], config: AdmissionConfig = ON) -> tuple[list[list[str]], AdmissionState]:
    """What became of each group, by step from the first on, and the state at the end."""
    state, found = AdmissionState(), []
    for number, groups in enumerate(steps, start=1):
        decided, state = admit(groups, state, config, number)
        found.append([group.dropped for group in decided])
    return found, state


def test_a_filter_worked_by_hand(group_of: Callable[..., Group]) -> None:
    """Steps 6 to 10 have means 0.2 and 0.4 in turn: the average is 0.28, the limit at step 11 half of it."""
    early = [[group_of(9.0)]] * 5
    collected = [[group_of(s - 0.1), group_of(s + 0.1)] for s in (0.2, 0.4, 0.2, 0.4, 0.2)]
    eleventh = [group_of(0.139), group_of(0.141), group_of(0.0)]
    mean = (0.139 + 0.141) / 3
    limit = 0.5 * (0.99 * 0.28 + 0.01 * mean)
    twelfth = [group_of(limit - 1e-6), group_of(limit + 1e-6)]
    found, state = run([*early, *collected, eleventh, twelfth])
    assert found[:10] == [[""]] * 5 + [["", ""]] * 5
    assert found[10] == ["low_std", "", "low_std"]
    assert found[11] == ["low_std", ""]
    after = 0.99 * (0.99 * 0.28 + 0.01 * mean) + 0.01 * limit
    assert state.usual_std["long"].average == pytest.approx(after, abs=1e-12)
    assert state.usual_std["long"].steps == 7


def test_each_mode_is_compared_with_itself(group_of: Callable[..., Group]) -> None:
    steps = [[group_of(0.4), group_of(0.01, mode="short")]] * 11
    found, state = run(steps)
    assert found[-1] == ["", ""]
    assert state.usual_std["long"].average == pytest.approx(0.4)
    assert state.usual_std["short"].average == pytest.approx(0.01)


def test_a_dropped_group_has_no_part_in_the_loss_and_keeps_its_rewards(group_of: Callable[..., Group]) -> None:
    _, state = run([[group_of(0.4)]] * 10)
    low, high = group_of(0.1), group_of(0.4, mode="short")
    (dropped, kept), _ = admit([low, high], state, ON, 11)
    assert kept is high
    assert [sample.trained for sample in dropped.samples] == [False, False]
    assert {a for sample in dropped.samples for a in sample.advantages} == {0.0}
    assert dropped.advantage.std == low.advantage.std
    assert [s.score for s in dropped.samples] == [s.score for s in low.samples]
    normalizer = Normalizer(name="mode_balanced", loss_weights={"short": 1.0, "long": 1.0})
    assert token_weights([dropped, kept], normalizer)[1:] == token_weights([kept], normalizer)


def test_without_a_filter_nothing_happens(group_of: Callable[..., Group]) -> None:
    groups = [group_of(0.0), group_of(0.4)]
    assert run([groups] * 20, AdmissionConfig()) == ([["", ""]] * 20, AdmissionState())


def test_groups_without_scores_neither_count_nor_are_dropped(group_of: Callable[..., Group]) -> None:
    steps = [[group_of(0.4), group_of(0.0, scored=False)]] * 11
    found, state = run(steps)
    assert found[-1] == ["", ""]
    assert state.usual_std["long"].average == pytest.approx(0.4)
    nothing, state = run([[group_of(0.0, scored=False)]] * 12)
    assert nothing[-1] == [""] and not state.usual_std


def test_a_mode_that_comes_late_has_nothing_to_compare_with_at_first(group_of: Callable[..., Group]) -> None:
    steps = [*([[group_of(0.4)]] * 11), [group_of(0.2, mode="short")], [group_of(0.05, mode="short")]]
    found, _ = run(steps)
    assert found[-2:] == [[""], ["low_std"]]


@settings(max_examples=20)
@given(stds=st.lists(st.floats(0, 1), min_size=12, max_size=20), cut=st.integers(1, 11))
def test_a_state_survives_json_to_the_last_bit(stds: list[float], cut: int) -> None:
    def group(std: float) -> Any:
        class Stand:
            mode = "long"
            samples = ()
            advantage = type("A", (), {"std": std, "signal": "ok", "values": ()})()

        return Stand()

    # Only what is remembered is looked at, so steps stay before the first that drops.
    config = AdmissionConfig(std_filter=StdFilterConfig(ema_from_step=1, filter_from_step=1000))
    whole = AdmissionState()
    halved = AdmissionState()
    for step, std in enumerate(stds, start=1):
        _, whole = admit([group(std)], whole, config, step)
        _, halved = admit([group(std)], halved, config, step)
        if step == cut:
            halved = AdmissionState.from_json(json.loads(json.dumps(halved.to_json())))
    assert whole == halved


def test_a_filter_needs_an_average_first() -> None:
    with pytest.raises(ValueError, match="make it larger than ema_from_step"):
        StdFilterConfig(ema_from_step=6, filter_from_step=6)
