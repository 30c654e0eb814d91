"""The warm-up: what it draws when, what it weighs, and that it teaches."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import DEFAULT_CONFIG, SMALL

from hybrid_rl.config import load_config
from hybrid_rl.errors import ConfigError
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.stages.supervised import SupervisedStage

CONFIG = load_config(DEFAULT_CONFIG, [*SMALL, "warmup.steps=20", "warmup.optimizer.learning_rate=3e-3"])


@pytest.fixture
def policy() -> Policy:
    return load_policy(CONFIG.model, CONFIG.modes, seed=0, search=CONFIG.search, trainable=True)


def test_sources_begin_and_end_where_the_config_says() -> None:
    assert CONFIG.warmup is not None
    active = [CONFIG.warmup.active(step) for step in range(1, 21)]
    assert active[:3] == [["look"]] * 3  # 0.15 of 20 steps
    assert active[3:15] == [["read", "sum", "sum_short"]] * 12
    assert active[15:] == [["read_wrong", "sum_wrong", "sum_short_wrong"]] * 5


def test_modes_of_a_source_are_dealt_evenly(policy: Policy) -> None:
    stage = SupervisedStage(policy, load_config(DEFAULT_CONFIG, [*SMALL, "warmup.steps=20", "warmup.batch_size=14"]))
    assert set(stage._batch(1)[1]) == {"short"}
    # Of 14 prompts 4 are to be read, in both modes, 8 added in the long one and 2 in the short one.
    assert Counter(stage._batch(20)[1]) == {"short": 2 + 2, "long": 2 + 8}


def test_a_warm_up_lowers_the_loss(policy: Policy) -> None:
    stage = SupervisedStage(policy, CONFIG)
    first = stage.advance(2)
    stage.advance(3)
    assert stage.advance(2) < first - 0.5
    assert stage.done == 7
    assert stage.advance(100) > 0 and stage.done == 20


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("warmup.sources.look.end=0.1", "none is drawn from at step 3; mend begin and end"),
        ("warmup.sources.look.modes=[shrot]", "there is no mode 'shrot'; modes.kinds has short, long"),
    ],
)
def test_a_gap_or_an_unknown_mode_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(DEFAULT_CONFIG, [*SMALL, "warmup.steps=20", override])
