"""Reasoning Gym prompts: reproducible, split by generator seed, and clear about what it does not know."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from hybrid_rl.data.gym import ReasoningGym, _generator_seed
from hybrid_rl.errors import ConfigError


def gym(split: Any = "train", seed: int = 1, task: str = "chain_sum", **args: Any) -> ReasoningGym:
    return ReasoningGym("gym", split, seed, task, **args)


def test_a_prompt_carries_question_answer_and_metadata() -> None:
    prompt = gym(num_prompts=5, min_terms=3, max_terms=3)[4]
    assert (prompt.source, prompt.task, prompt.id) == ("gym", "chain_sum", "chain_sum/train/000004")
    assert prompt.columns["expression"] in prompt.messages[0].text
    assert int(prompt.gold) == eval(prompt.columns["expression"])
    assert prompt.columns["num_terms"] == 3
    assert json.loads(json.dumps(prompt.columns)) == prompt.columns


def test_prompts_are_the_same_in_every_process_and_differ_by_seed() -> None:
    a, b, c = gym(), gym(), gym(seed=2)
    assert [a[i] for i in range(9)] == [b[i] for i in reversed(range(9))][::-1]
    assert [a[i].gold for i in range(9)] != [c[i].gold for i in range(9)]
    assert len(a) == 10_000


@pytest.mark.parametrize("num_prompts", [1, 10_000, 2**29])
def test_no_generator_seed_serves_both_splits(num_prompts: int) -> None:
    for seed in range(50):
        train = _generator_seed("train", seed, "chain_sum", num_prompts)
        held_out = _generator_seed("eval", seed, "chain_sum", num_prompts)
        assert train + num_prompts <= held_out and held_out + num_prompts <= 2**31


def test_splits_pose_other_problems() -> None:
    hard: dict[str, Any] = {"min_digits": 6, "max_digits": 6, "num_prompts": 50}
    train, held_out = gym("train", **hard), gym("eval", **hard)
    assert not {train[i].messages for i in range(50)} & {held_out[i].messages for i in range(50)}


def test_the_number_of_prompts_ends_the_source() -> None:
    with pytest.raises(IndexError):
        gym(num_prompts=2)[2]


@pytest.mark.parametrize(
    ("task", "args", "message"),
    [
        ("chain_sums", {}, "no task 'chain_sums'; the nearest are chain_sum"),
        ("qqqq", {}, "known are .*chain_sum"),
        ("chain_sum", {"terms": 3}, "no setting 'terms'; it has .*min_terms"),
        ("chain_sum", {"size": 3}, "no setting 'size'"),
        ("chain_sum", {"min_terms": 5, "max_terms": 2}, "refuses its settings .*max_terms must be >= min_terms"),
        ("chain_sum", {"min_terms": "two"}, "refuses its settings"),
        ("rubiks_cube", {}, "gives no reference answer"),
        ("chain_sum", {"num_prompts": 0}, "num_prompts is 0"),
    ],
)
def test_what_cannot_be_built_is_explained(task: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gym(task=task, **args)


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ConfigError, match="no split 'test'"):
        gym("test")


def test_generators_that_draw_from_global_randomness_are_reproducible_and_leave_it_alone() -> None:
    for task in ("list_functions", "pool_matrix"):
        random.seed(1)
        np.random.seed(1)
        first = [gym(task=task)[i] for i in range(3)]
        after = (random.random(), np.random.random())
        random.seed(2)
        assert [gym(task=task)[i] for i in (2, 1, 0)] == first[::-1]
        random.seed(1)
        np.random.seed(1)
        assert (random.random(), np.random.random()) == after


def test_tasks_that_depend_on_the_hash_seed_ask_for_a_fixed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(ConfigError, match="start with PYTHONHASHSEED=0"):
        gym(task="word_ladder")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert gym(task="ransom_note")[0].gold in ("True", "False")
