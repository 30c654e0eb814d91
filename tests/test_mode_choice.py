"""The measures of a mode in which the model chooses: how often it thinks, and whether it was right to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hybrid_rl.algorithm.grouping import make_grouping
from hybrid_rl.algorithm.mode_choice import Answered, hybrid_accuracy
from hybrid_rl.config import Config
from hybrid_rl.insight.metrics import step_metrics
from hybrid_rl.protocols import Thought
from hybrid_rl.records import Rollout, Score
from hybrid_rl.updates.grpo import UpdateFigures

THOUGHTS: dict[str, Thought] = {"short": "closed", "long": "opened", "auto": "free"}


def answers(make: Callable[..., Rollout], prompt: str, short: float, long: float, thinks: list[bool]) -> list[Answered]:
    found = [
        Answered(prompt, make(range(2), mode="short"), short),
        Answered(prompt, make(range(9), mode="long", thought="hm"), long),
    ]
    return found + [Answered(prompt, make(mode="auto", thought="hm" if t else ""), 0.0) for t in thinks]


@pytest.mark.parametrize(
    ("short", "long", "thinks", "expected"),
    [
        (0.0, 1.0, [True, True], 1.0),  # a thought is needed, and there is one
        (1.0, 0.0, [True, True], 0.0),
        (1.0, 1.0, [True, False], 0.5),  # both right: the one with fewer tokens is better
        (0.0, 0.0, [False, False], 1.0),
    ],
)
def test_hybrid_accuracy_by_hand(
    make_rollout: Callable[..., Rollout], short: float, long: float, thinks: list[bool], expected: float
) -> None:
    assert hybrid_accuracy(answers(make_rollout, "p", short, long, thinks), THOUGHTS) == {"auto": expected}


def test_prompts_count_alike_and_only_where_there_is_a_better_mode(make_rollout: Callable[..., Rollout]) -> None:
    both = answers(make_rollout, "p", 0.0, 1.0, [True]) + answers(make_rollout, "q", 1.0, 0.0, [True] * 5)
    assert hybrid_accuracy(both, THOUGHTS) == {"auto": 0.5}
    alone = [Answered("r", make_rollout(mode="auto"), 1.0)]
    assert hybrid_accuracy(both + alone, THOUGHTS) == {"auto": 0.5}
    assert hybrid_accuracy(alone, THOUGHTS) == {}


def test_figures_of_a_step(make_rollout: Callable[..., Rollout], small_config: Callable[..., Config]) -> None:
    config = small_config(
        "modes.long_ratio=null",
        "modes.kinds={short: {max_new_tokens: 9}, long: {max_new_tokens: 9}, auto: {max_new_tokens: 9}}",
    )
    rollouts = [
        *(make_rollout(mode="short", group="p/short") for _ in range(2)),
        *(make_rollout(mode="long", group="p/long", thought="hm") for _ in range(2)),
        *(make_rollout(mode="auto", group="p/auto", thought=t) for t in ("hm", "", "", "")),
    ]
    scores = [Score(value=v, parts={"accuracy": v}) for v in (0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)]
    groups = make_grouping(config, THOUGHTS).groups(rollouts, scores, 1)
    shares = {"short": 0.25, "long": 0.25, "auto": 0.5}
    found = step_metrics(groups, UpdateFigures(), None, {}, step=1, version=1, shares=shares,
                         thoughts=THOUGHTS)  # fmt: skip
    assert (found["share/short"], found["share/auto"], found["share_asked/auto"]) == (0.25, 0.5, 0.5)
    assert (found["thinks/short"], found["thinks/long"], found["thinks/auto"]) == (0.0, 1.0, 0.25)
    assert found["hybrid_accuracy/auto"] == 0.25
    assert "hybrid_accuracy/long" not in found
