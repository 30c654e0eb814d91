"""Modes are dealt in exact counts for any number of prompts and any ratio, whichever way, at any step alone."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import pytest
from conftest import DEFAULT_CONFIG
from hypothesis import given
from hypothesis import strategies as st

from hybrid_rl.algorithm.assignment import mode_schedule
from hybrid_rl.algorithm.modes import deal_requests
from hybrid_rl.algorithm.quota import quotas
from hybrid_rl.algorithm.ratio import ratios
from hybrid_rl.config import load_config
from hybrid_rl.config.ratio import RatioConfig
from hybrid_rl.data.sources import make_mixture
from hybrid_rl.dealing import Dealer
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.protocols import ModeSchedule
from hybrid_rl.records import Message, Prompt

G = 4


def prompts(number: int, source: str = "read", **columns: Any) -> list[Prompt]:
    return [
        Prompt(id=str(i), source=source, task="t", messages=(Message(role="user", text="?"),), gold="", columns=columns)
        for i in range(number)
    ]


def schedule(*overrides: str) -> ModeSchedule:
    return mode_schedule(load_config(DEFAULT_CONFIG, [f"train.responses_per_prompt={G}", *overrides]))


def dealt(made: ModeSchedule, step: int, asked: list[Prompt]) -> Counter[str]:
    """Responses in each mode."""
    total: Counter[str] = Counter()
    for counts in made.assign(step, asked, G):
        assert sum(counts.values()) == G and all(counts.values())
        total.update(counts)
    return total


RATIO_SCHEDULES = [
    {"schedule": "linear", "start": 0.0, "end": 1.0, "over_steps": 11},
    {"schedule": "cosine", "start": 0.8, "end": 0.2, "over_steps": 20},
    {"schedule": "steps", "milestones": [3, 6], "values": [0.0, 0.25, 1.0]},
]


@given(st.sampled_from(["per_prompt", "per_rollout"]), st.floats(0, 1), st.integers(1, 40), st.integers(1, 12))
def test_counts_are_exact_for_any_number_of_prompts_and_any_ratio(
    assign: str, ratio: float, number: int, steps: int
) -> None:
    made = schedule(f"modes.assign={assign}", f"modes.long_ratio={ratio!r}")
    unit = G if assign == "per_prompt" else 1
    total = 0
    for step in range(1, steps + 1):
        total += dealt(made, step, prompts(number))["long"]
        assert abs(total - ratio * step * number * G) <= unit + 1e-6


@given(
    st.sampled_from(["per_prompt", "per_rollout"]),
    st.sampled_from(RATIO_SCHEDULES),
    st.integers(1, 40),
    st.integers(1, 25),
)
def test_counts_follow_a_schedule(assign: str, ratio: dict[str, Any], number: int, steps: int) -> None:
    made = schedule(f"modes.assign={assign}", f"modes.long_ratio={ratio}".replace("'", ""))
    wanted = ratios(RatioConfig.model_validate(ratio), steps)
    unit = G if assign == "per_prompt" else 1
    total = 0
    for step in range(1, steps + 1):
        total += dealt(made, step, prompts(number))["long"]
        assert abs(total - wanted[:step].sum() * number * G) <= unit / 2 + 1e-4
        assert made.shares(step)["long"] == pytest.approx(wanted[step - 1])


def test_schedules_by_hand() -> None:
    linear, cosine, steps = (RatioConfig.model_validate(ratio) for ratio in RATIO_SCHEDULES)
    assert ratios(linear, 13).tolist() == pytest.approx([i / 10 for i in range(11)] + [1, 1])
    assert ratios(steps, 8).tolist() == [0, 0, 0.25, 0.25, 0.25, 1, 1, 1]
    found = ratios(cosine, 21)
    assert (found[0], found[19], found[20]) == pytest.approx((0.8, 0.2, 0.2))
    assert found[5] == pytest.approx(0.2 + 0.6 * (1 + math.cos(math.pi * 5 / 19)) / 2)
    assert ratios(0.3, 2).tolist() == [0.3, 0.3]


@pytest.mark.parametrize("assign", ["per_prompt", "per_rollout"])
@pytest.mark.parametrize("ratio", ["0.3", *(str(r).replace("'", "") for r in RATIO_SCHEDULES)])
def test_a_schedule_resumes_in_the_middle(assign: str, ratio: str) -> None:
    """What is dealt at a step depends on nothing that happened before it in the process."""
    overrides = (f"modes.assign={assign}", f"modes.long_ratio={ratio}")
    through = schedule(*overrides)
    whole = [through.assign(step, prompts(7), G) for step in range(1, 15)]
    assert [schedule(*overrides).assign(step, prompts(7), G) for step in (9, 13)] == [whole[8], whole[12]]


def test_a_ratio_for_each_source() -> None:
    made = schedule("modes.long_ratio={by_source: {read: 0.25, sum: 1.0}}")
    assert made.shares(1) == pytest.approx({"short": 0.375, "long": 0.625})
    cells: Counter[tuple[str, str]] = Counter()
    for step in range(1, 5):
        asked = [*prompts(3, "read"), *prompts(3, "sum")]
        for prompt, counts in zip(asked, made.assign(step, asked, G), strict=True):
            cells.update({(prompt.source, mode): 1 for mode in counts})
    assert cells == {("read", "short"): 9, ("read", "long"): 3, ("sum", "long"): 12}


@given(
    st.sampled_from(["per_prompt", "per_rollout"]),
    st.sampled_from(RATIO_SCHEDULES),
    st.integers(1, 12),
    st.integers(1, 3),
    st.integers(1, 16),
)
def test_every_source_follows_its_own_schedule_whatever_its_prompts(
    assign: str, ratio: dict[str, Any], number: int, weight: int, steps: int
) -> None:
    by_source = f"{{by_source: {{read: {ratio}, sum: 0.25}}}}".replace("'", "")
    overrides = (f"modes.assign={assign}", f"data.sources.read.weight={weight}", f"modes.long_ratio={by_source}")
    through = schedule(*overrides)
    wanted = ratios(RatioConfig.model_validate(ratio), steps)
    unit = G if assign == "per_prompt" else 1
    exact = {"read": 0.0, "sum": 0.0}
    total: Counter[str] = Counter()
    for step in range(1, steps + 1):
        counts = quotas([weight, 1], (step - 1) * number, step * number)
        asked = [*prompts(counts[0], "read"), *prompts(counts[1], "sum")]
        for prompt, dealt_here in zip(asked, through.assign(step, asked, G), strict=True):
            total[prompt.source] += dealt_here.get("long", 0)
        exact["read"] += float(wanted[step - 1]) * counts[0] * G
        exact["sum"] += 0.25 * counts[1] * G
        assert abs(total["read"] - exact["read"]) <= unit / 2 + 1e-4
        assert abs(total["sum"] - exact["sum"]) <= unit + 1e-6
    # What a step gets depends on the step alone: a run that is resumed there goes on as it would have.
    assert schedule(*overrides).assign(steps, asked, G) == through.assign(steps, asked, G)
    share = (weight * wanted[-1] + 0.25) / (weight + 1)
    assert through.shares(steps)["long"] == pytest.approx(share)


@pytest.mark.parametrize(
    ("ratio", "complaint"),
    [("{read: 0.25}", "'sum' has no ratio"), ("{read: 0, sum: 0, som: 1}", "'som' is no source")],
)
def test_ratios_are_those_of_the_sources(ratio: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        schedule(f"modes.long_ratio={{by_source: {ratio}}}")


def test_a_forced_mode_was_drawn_with_the_share_of_its_source() -> None:
    """AdaptThink divides by the probability of the assignment: that of the source, where each has its own."""
    ramp = "{schedule: linear, start: 0.5, end: 0.75, over_steps: 2}"
    config = load_config(DEFAULT_CONFIG, [f"modes.long_ratio={{by_source: {{read: 0.25, sum: {ramp}}}}}"])
    mixture = make_mixture(config.data.sources, "train", 0, config.search)
    requests = Dealer(config, mixture, mode_schedule(config)).first(2)
    assert {(r.prompt.source, r.mode): r.mode_share for r in requests} == {
        ("read", "short"): 0.75, ("read", "long"): 0.25, ("sum", "short"): 0.25, ("sum", "long"): 0.75,
    }  # fmt: skip


def test_paired_answers_every_prompt_in_both_modes() -> None:
    made = schedule("modes.assign=paired")
    assert made.assign(3, prompts(5), G) == [{"short": 2, "long": 2}] * 5
    config = load_config(DEFAULT_CONFIG)
    requests = deal_requests(prompts(2), made.assign(1, prompts(2), G), config.modes, step=1, seed=0,
                             shares=partial(made.shares, 1))  # fmt: skip
    assert [r.mode for r in requests] == ["short", "short", "long", "long"] * 2
    assert len({r.group for r in requests}) == 4
    assert [r.place for r in requests] == [0] * 4 + [1] * 4
    assert {r.mode_share for r in requests} == {0.5}
    assert len({r.seed for r in requests}) == 8


@pytest.mark.parametrize("ratio", ["0.3", "0.25"])
def test_paired_needs_whole_groups(ratio: str) -> None:
    with pytest.raises(ConfigError, match="is not a whole number of at least 2"):
        schedule("modes.assign=paired", f"modes.long_ratio={ratio}")


def test_per_rollout_mixes_the_modes_of_a_prompt_differently_every_step() -> None:
    made = schedule("modes.assign=per_rollout")
    first, second = made.assign(1, prompts(16), G), made.assign(2, prompts(16), G)
    assert first != second
    assert len({tuple(sorted(counts.items())) for counts in first}) > 1
    assert dealt(made, 1, prompts(16)) == {"short": 32, "long": 32}


def test_the_column_of_the_data_decides() -> None:
    made = schedule("modes.assign=column", "modes.long_ratio=null")
    asked = [*prompts(1, mode="long"), *prompts(2, mode="short")]
    assert made.assign(1, asked, G) == [{"long": G}, {"short": G}, {"short": G}]
    assert made.shares(1) == {}
    with pytest.raises(DataError, match=r"prompt 0 of source read has the mode 'lomg'.*did you mean 'long'"):
        made.assign(1, prompts(1, mode="lomg"), G)
    with pytest.raises(DataError, match="has no column 'mode'; give every row one of short, long"):
        made.assign(1, prompts(1), G)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("modes.long_ratio={schedule: linear, start: 0.0, end: 1.5, over_steps: 9}", r"long_ratio\.end: .*not 1.5"),
        (
            "modes.long_ratio={schedule: linear, start: -0.5, end: 1, over_steps: 9}",
            "modes.long_ratio.start: .*not -0.5",
        ),
        ("modes.long_ratio={by_source: {read: 2, sum: 0}}", "modes.long_ratio.by_source.read: .*not 2"),
        ("modes.long_ratio={schedule: steps, milestones: [5], values: [0, 7]}", "modes.long_ratio.values.1: .*not 7"),
        ("modes.long_ratio={schedule: cosine, start: 0}", "schedule cosine needs start, end, over_steps"),
        ("modes.long_ratio={schedule: steps, milestones: [9, 5], values: [0, 1, 0]}", "do not rise"),
        ("modes.long_ratio={schedule: steps, milestones: [5], values: [0, 1, 0]}", "there are 3 values"),
        ("modes.long_ratio={schedule: linear, start: 0, end: 1, over_steps: 5, values: [0, 1]}", "values does not go"),
        ("modes.long_ratio={by_source: {read: {start: 0}}}", "read: .*a number or has a schedule"),
        (
            "modes.long_ratio={by_source: {read: {schedule: linear, start: 2, end: 0, over_steps: 3}}}",
            r"modes.long_ratio.by_source.read.start: .*not 2",
        ),
        ("modes.long_ratio={by_source: {read: {by_source: {read: 0.1}}}}", "by_source"),
        ("modes.long_ratio={by_sorce: {read: 0}}", "did you mean 'by_source'"),
        ("modes.long_ratio=half", "modes.long_ratio: .*not 'half'"),
        ("modes.assign=column", "takes the modes from the data; remove long_ratio"),
        ("modes.assign=random", "modes.assign"),
    ],
)
def test_a_ratio_that_is_none_is_refused_in_one_sentence(override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_config(DEFAULT_CONFIG, [override])
