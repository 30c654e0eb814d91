"""The small preference model of the ablation: from a warm-up, on right digits against almost right ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY, SMALL

from hybrid_rl.config import Config, load_config
from hybrid_rl.data.digits import DigitStrips
from hybrid_rl.errors import ConfigError
from hybrid_rl.studies.synthetic_preferences import one_digit_wrong, pairs, train
from rewards.preference import Preference

BRIEF = ["warmup.steps=2", "warmup.batch_size=2", "warmup.warmup_steps=1"]


def config(*overrides: str) -> Config:
    return load_config(REPOSITORY / "configs" / "grpo_preference_cpu.yaml", [*SMALL, *overrides])


def test_a_rejected_answer_differs_in_one_digit_and_is_the_same_every_time() -> None:
    strips = DigitStrips("d", "train", 0, "read", max_digits=3)
    for prompt in map(strips.__getitem__, range(50)):
        rejected = one_digit_wrong(prompt)
        assert len(rejected) == len(prompt.gold) and rejected == one_digit_wrong(prompt)
        assert sum(a != b for a, b in zip(rejected, prompt.gold, strict=True)) == 1


def test_held_out_pairs_share_no_picture_with_those_trained_on() -> None:
    pictures = [{pair.prompt.images[0].data for pair in pairs(config(), split, 30)} for split in ("train", "eval")]
    assert all(len(found) == 30 for found in pictures) and not pictures[0] & pictures[1]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("warmup=null", "has no warm-up"),
        ("modes.kinds.short.template_args={enable_thinking: true}", "no mode has template_args.enable_thinking false"),
    ],
)
def test_what_it_cannot_start_from(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        train(config(override), tmp_path / "model", steps=1, batch_size=1, learning_rate=1e-3)


@pytest.mark.slow
def test_what_is_saved_is_a_preference_model(tmp_path: Path) -> None:
    share = train(config(*BRIEF), tmp_path / "model", steps=2, batch_size=2, learning_rate=1e-3)
    assert 0 <= share <= 1
    Preference(str(tmp_path / "model")).check()
