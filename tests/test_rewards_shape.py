"""Rewards on the shape of a response: format, repetition, length, language, constraints, JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_rl.records import Message, Prompt
from rewards.instructions import constraints
from rewards.json_answer import json_exact, json_leaves
from rewards.language_consistency import language_consistency, main_script
from rewards.length_shaping import (
    CosineScaled,
    SoftOverlong,
    cosine_scaled,
    l1_exact,
    l1_max,
    len_reward,
    soft_overlong,
)
from rewards.ngram_repetition import TokenRepetition, ngram_repetition
from rewards.response_format import (
    format_nemo,
    format_strict_think,
    format_tag_count,
    format_think,
    format_think_answer,
)


@pytest.mark.parametrize(
    ("text", "think", "strict", "both", "tags", "nemo"),
    [
        ("<think>a</think>b", 1, 1, 0, 0.5, 0.25),
        ("<think>a</think> ", 1, 0, 0, 0.5, 0.25),
        ("<think>a</think>b</think>", 1, 0, 0, 0.25, 0.25),
        ("<think>a</think>\n<answer>b</answer>", 1, 1, 1, 1, 1),
        ("<think>a</think> so <answer>b</answer>", 1, 1, 0, 1, 1),
        ("<answer>b</answer>", 0, 0, 0, 0.5, 0.75),
        ("</think><think>", 0, 0, 0, 0.5, 0),
        ("b", 0, 0, 0, 0, 0),
    ],
)
def test_formats(text: str, think: float, strict: float, both: float, tags: float, nemo: float) -> None:
    formats = (format_think, format_strict_think, format_think_answer, format_tag_count, format_nemo)
    assert [f(text) for f in formats] == [think, strict, both, tags, nemo]


@given(st.text(alphabet="<>/thinkanswer \n", max_size=60))
def test_the_think_format_is_that_of_trl(text: str) -> None:
    rewards = pytest.importorskip("trl.rewards")
    assert format_think(text) == rewards.think_format_reward([[{"content": text}]])[0]


def test_repetition_by_hand() -> None:
    """a b a b a has the bigrams ab ba ab ba: two of four differ."""
    assert ngram_repetition("A b a B a", ngram=2) == -0.5
    assert ngram_repetition("我很好我很好", ngram=3) == -0.25
    assert ngram_repetition("a b", ngram=3) == 0


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(1, 4))
def test_repetition_on_ids_is_that_of_trl(ids: list[int], ngram: int) -> None:
    rewards = pytest.importorskip("trl.rewards")
    theirs = rewards.get_repetition_penalty_reward(ngram_size=ngram, max_penalty=-1.0)(completion_ids=[ids])[0]
    assert TokenRepetition(ngram)(ids) == pytest.approx(theirs)


@given(st.integers(0, 200), st.integers(1, 100))
def test_soft_overlong_is_that_of_trl(length: int, cache: int) -> None:
    rewards = pytest.importorskip("trl.rewards")
    theirs = rewards.get_soft_overlong_punishment(100, cache)(completion_ids=[[0] * length])[0]
    assert soft_overlong(length, 100, cache) == pytest.approx(theirs)
    assert SoftOverlong(100, cache)([0] * length) == soft_overlong(length, 100, cache)


def test_cosine_by_hand() -> None:
    assert cosine_scaled(0, 100, True) == 1.0
    assert cosine_scaled(50, 100, True) == pytest.approx(0.75)
    assert cosine_scaled(900, 100, True) == pytest.approx(0.5)
    assert cosine_scaled(0, 100, False) == -1.0
    assert cosine_scaled(100, 100, False) == pytest.approx(-0.5)


def test_cosine_asks_another_reward_what_is_right() -> None:
    reward = CosineScaled("rewards.text_match:text_match", max_len=4)
    assert reward(ids=(), answer="Paris", gold="paris", well_formed=True) == 1.0
    assert reward(ids=(), answer="Rome", gold="paris", well_formed=True) == -1.0
    assert reward(ids=(), answer=None, gold="paris", well_formed=False) == -1.0


def test_kimi_length_reward_by_hand() -> None:
    assert len_reward([10, 20, 30, 10], [True, True, True, False]) == [0.5, 0.0, -0.5, 0.0]
    assert len_reward([30, 10], [False, True]) == [-0.5, 0.5]
    assert len_reward([7, 7], [True, False]) == [0, 0]
    with pytest.raises(ValueError, match="2 lengths for 1 verdicts"):
        len_reward([1, 2], [True])


def test_l1_length_terms_by_hand() -> None:
    assert l1_exact(1100, 1000, 1.0) == pytest.approx(0.97)
    assert l1_max(1000, 1000, 1.0) == pytest.approx(0.5)
    assert l1_max(9000, 1000, 1.0) == 0
    assert l1_max(0, 9000, 0.0) == 0


def consistency(question: str, thought: str, answer: str | None) -> float | None:
    prompt = Prompt(id="p", source="", task="", messages=(Message(role="user", text=question),), gold="")
    return language_consistency(prompt, thought, answer, well_formed=True, wants_thought=True)


def test_thought_and_answer_are_to_be_in_the_writing_of_the_question() -> None:
    assert consistency("How many boats are there?", "I see three boats", "three") == 1
    assert consistency("How many boats are there?", "我看到三条船", "three") == 0
    assert consistency("图片里有几条船？", "我看到三条船，设 x 为 $x^2 + many$", "3") == 1
    assert consistency("图片里有几条船？", "我看到三条船", "three boats here") == 0
    assert consistency("Сколько лодок здесь?", "Вижу две лодки and more", "две лодки") == pytest.approx(3 / 5)
    assert consistency("1 + 1?", "two", "2") is None
    assert main_script("これは船です") == "KANA"


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        ({"kind": "words", "min": 2, "max": 3}, "two words", "one"),
        ({"kind": "sentences", "exactly": 2}, "One. Two!", "One."),
        ({"kind": "paragraphs", "exactly": 2}, "a\n\nb", "a\nb"),
        ({"kind": "list_items", "exactly": 2}, "- a\n- b", "- a"),
        ({"kind": "keyword", "word": "art", "min": 2}, "Art and art", "start, art"),
        ({"kind": "keywords", "words": ["sea", "海"]}, "sea 大海", "sea"),
        ({"kind": "forbidden", "words": ["sea"]}, "seal", "the Sea"),
        ({"kind": "case", "case": "lower"}, "all small", "Not small"),
        ({"kind": "case", "case": "title"}, "The Big Sea", "The big Sea"),
        ({"kind": "starts_with", "text": "Dear"}, "dear you", "you, dear"),
        ({"kind": "ends_with", "text": "end."}, "The end.", "end. not"),
        ({"kind": "script", "script": "chinese"}, "你好世界", "hello big world"),
        ({"kind": "json"}, '{"a": 1}', "{a: 1}"),
        ({"kind": "no_commas"}, "none", "a, b"),
        ({"kind": "quoted"}, '"x"', "x"),
        ({"kind": "title"}, "<<T>> x", "T x"),
        ({"kind": "one_of", "options": ["Yes.", "No."]}, "yes", "perhaps"),
        ({"kind": "placeholders", "min": 1}, "Dear [name]", "Dear you"),
        ({"kind": "capital_words", "max": 1}, "One BIG word", "TWO BIG words"),
        ({"kind": "lines", "exactly": 2}, "a\n\nb", "a"),
        ({"kind": "characters", "max": 3}, "abc", "abcd"),
    ],
)
def test_constraints(constraint: dict[str, Any], good: str, bad: str) -> None:
    assert constraints(good, [constraint]) == 1
    assert constraints(bad, json.dumps([constraint])) == 0
    assert constraints("", [constraint]) == 0


def test_constraints_are_counted_or_all_asked_for() -> None:
    both = [{"kind": "no_commas"}, {"kind": "case", "case": "upper"}]
    assert constraints("none", both) == 0.5
    assert constraints("none", both, all_of_them=True) == 0
    assert constraints("x", [{"kind": "nonsense"}]) is None
    assert constraints("x", [{"kind": "words"}]) is None
    assert constraints("x", "not json") is None


def test_json_answers() -> None:
    gold = {"a": 1, "b": ["x", "y"]}
    assert json_exact('```json\n{"b": ["x", "y"], "a": 1.0}\n```', gold) == 1
    assert json_exact('{"a": "1", "b": ["x", "y"]}', gold) == 0
    assert json_exact('{"a": true, "b": ["x", "y"]}', gold) == 0
    # Right: b/0. Paths of both sides: a, b/0, b/1, c.
    assert json_leaves('{"a": 2, "b": ["x"], "c": 0}', json.dumps(gold)) == 0.25
    assert json_exact("[" * 50_000, gold) == 0
    assert json_exact("{}", "not json") is None
