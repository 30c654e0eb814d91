"""Rewards on words, choices and numbers: tables of cases, and what must not pay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.answer_span import answer_span, behind_thought, boxed
from rewards.chart import relaxed, relaxed_clean
from rewards.counting import count
from rewards.decimal_exact import decimal_exact
from rewards.multiple_choice import multiple_choice
from rewards.numeric import numeric
from rewards.ocr_match import ocr_exact, ocr_match
from rewards.text_exact import alnum, exact, exact_ws, text_sloppy
from rewards.text_match import text_match
from rewards.token_f1 import token_f1
from rewards.truth import truth
from rewards.unit_name import unit_name

LETTERS = ["A", "B", "C", "D"]
SKY = ["the moon", "the sun", "our earth", "red mars"]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("<think>7</think>8", "8"),
        ("<think>8", ""),
        ("<answer>3</answer> or 4", "3"),
        ("Answer: 1\nAnswer: **2**", "2"),
        (r"so \boxed{a{b}c}", "a{b}c"),
        ("12<|im_end|>", "12"),
        ("just words", "just words"),
    ],
)
def test_the_span_is_where_the_answer_is_marked(text: str, span: str) -> None:
    assert answer_span(text) == span


def test_an_open_thought_and_an_open_box_have_no_content() -> None:
    assert behind_thought("a</think>b<think>c") == ""
    assert boxed(r"\boxed{1") is None


@pytest.mark.parametrize(
    ("answer", "gold", "choices", "expected"),
    [
        ("The correct answer is (B).", "B", LETTERS, 1),
        ("answer: b", "B", LETTERS, 1),
        (r"$\boxed{\text{C}}$", "C", LETTERS, 1),
        ("答案：（B）", "B", LETTERS, 1),
        ("Answer: A\nno, Answer: D", "D", LETTERS, 1),
        ("Answer: A\nno, Answer: D", "A", LETTERS, 0),
        ("It is not A, so it is C", "C", LETTERS, 1),
        ("The answer is not A", "A", LETTERS, 0),
        ("A dog barks", "A", LETTERS, 0),
        ("I cannot say", "I", ["I", "II", "III"], 0),
        ("II", "II", ["I", "II", "III"], 1),
        ("А", "A", LETTERS, 0),  # Cyrillic
        ("A or B", "A", LETTERS, 0),
        ("(A) (B) (C) (D)", "B", LETTERS, 0),
        ("Both A and C are right", "AC", LETTERS, 1),
        ("C, A", "A, C", LETTERS, 1),
        ("A", "AC", LETTERS, 0),
        ("ABC", "AC", LETTERS, 0),
        ("sun", "B", SKY, 1),
        ("It is the sun", "the sun", SKY, 1),
        ("the sun and the moon", "B", SKY, 0),
        ("B) the sun", "B", SKY, 1),
        ("<think>B", "B", LETTERS, 0),
        ("B", "Z", LETTERS, None),
        ("B", "", LETTERS, None),
    ],
)
def test_multiple_choice(answer: str, gold: str, choices: list[str], expected: float | None) -> None:
    assert multiple_choice(answer, gold, choices) == expected


@given(st.permutations(LETTERS), st.sampled_from(LETTERS))
def test_naming_every_option_never_pays(order: list[str], gold: str) -> None:
    for joint in (" ", ", ", "", ") (", " or "):
        assert multiple_choice(joint.join(order), gold, LETTERS) == 0


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("The Quick, brown fox!", "quick brown fox", 1),
        ("ANSWER: **Paris**.", "paris", 1),
        ("The answer is 42", "answer is 42", 1),
        ("3.14", "314", 0),
        ("-5", "5", 0),
        ("1,000", "1000", 1),
        ("C#", "C", 0),
        ("03/05/2024", "05/03/2024", 0),
        ("yes and no", "yes", 0),
        ("", "42", 0),
        ("A", "a", 1),
        ("anything", " ", None),
        ("two", ["one", "two"], 1),
    ],
)
def test_text_match(answer: str, gold: Any, expected: float | None) -> None:
    assert text_match(answer, gold) == expected


def test_strict_comparisons_differ_in_what_they_forgive() -> None:
    assert [f("Ab c", "ab  c") for f in (exact, exact_ws, text_sloppy, alnum)] == [0, 0, 1, 1]
    assert [f("ab c", "ab  c") for f in (exact, exact_ws, text_sloppy, alnum)] == [0, 1, 1, 1]
    assert [f("ab-c", "abc") for f in (exact, exact_ws, text_sloppy, alnum)] == [0, 0, 0, 1]
    assert [f("x", "") for f in (exact, exact_ws, text_sloppy, alnum, token_f1)] == [None] * 5


def test_token_f1_by_hand() -> None:
    """Three of four words are right, three of five found: P = 3/4, R = 3/5, F1 = 2/3."""
    assert token_f1("red green blue pink", "red, green, blue, black and white".replace(" and", "")) == pytest.approx(
        2 / 3
    )
    assert token_f1("yes indeed", "yes") == 0


@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
def test_token_f1_is_bounded_and_symmetric(a: str, b: str) -> None:
    one, other = token_f1(a, [b]), token_f1(b, [a])
    assert one is None or 0 <= one <= 1
    if one is not None and other is not None and "<" not in a + b:
        assert one == pytest.approx(other)


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("Yes, because", "true", 1),
        ("No", "Y", 0),
        ("yes or no", "yes", 0),
        ("maybe", "no", 0),
        ("yes", "perhaps", None),
    ],
)
def test_truth(answer: str, gold: str, expected: float | None) -> None:
    assert truth(answer, gold) == expected


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("There are 3 boats.", "3", 1),
        ("three", "3", 1),
        ("3 boats and 2 cars", "3", 0),
        ("Answer: 5 (3 red, 2 blue)", "5", 0),
        ("1,234", "1234", 1),
        ("3.5", "3", 0),
        ("-3", "3", 0),
        ("3", "many", None),
    ],
)
def test_count(answer: str, gold: str, expected: float | None) -> None:
    assert count(answer, gold) == expected


def test_decimals_are_compared_to_the_last_digit() -> None:
    assert decimal_exact("1.20", "1.200") == 1
    assert decimal_exact("1.1999999999999999999", "1.2") == 0
    assert decimal_exact("1", "one") is None


@pytest.mark.parametrize(
    ("answer", "gold", "arguments", "expected"),
    [
        ("1.05", "1", {"rtol": 0.05}, 1),
        ("1.0501", "1", {"rtol": 0.05}, 0),
        ("-100", "100", {"rtol": 3}, 0),
        ("1e-12", "0", {"atol": 1e-9}, 1),
        ("about 22/7", "pi", {"rtol": 1e-3}, 1),
        ("{3, 1, 2}", "{1, 2, 3}", {}, 1),
        ("[3, 1, 2]", "[1, 2, 3]", {}, 0),
        ("100, 101", "100", {"rtol": 0.05}, 0),
        ("x != 5", "5", {}, 0),
        ("x = 5", "5", {}, 1),
        ("9^9^9^9", "1", {}, 0),
        ("inf", "inf", {}, None),
        ("12", "twelve", {}, None),
        ("3.6 MJ", "1 kWh", {"units": True}, 1),
        ("10 kg*m/s^2", "10 N", {"units": True}, 1),
        ("100 °C", "373.15 K", {"units": True}, 1),
        ("5 ft 3 in", "63 in", {"units": True}, 1),
        ("1 us", "1 m", {"units": True}, 0),
        ("1", "1 m", {"units": True}, 0),
        ("1", "1 m", {"units": True, "require_unit": False}, 1),
        ("1 m", "1", {"units": True}, 0),
        ("100 cm", "1 m", {"units": True, "same_unit": True}, 0),
        ("1.009 m", "1 m", {"units": True, "atol": "1 cm", "rtol": 0.0}, 1),
        ("1.011 m", "1 m", {"units": True, "atol": "1 cm", "rtol": 0.0}, 0),
    ],
)
def test_numeric(answer: str, gold: str, arguments: dict[str, Any], expected: float | None) -> None:
    assert numeric(answer, gold, **arguments) == expected


def test_a_unit_is_the_same_under_any_of_its_names_only() -> None:
    assert unit_name("metres", "m") == 1
    assert unit_name("cm", "m") == 0
    assert unit_name("m", "quux") is None


def test_the_published_chart_rule_and_the_clean_one() -> None:
    assert [relaxed(a, "100") for a in ("95", "94.9", "105%")] == [1, 0, 0]
    assert relaxed("2019", "2020") == 1  # years get 5 % too, as published
    assert relaxed_clean("2019", "2020") == 0
    assert (relaxed("1,234", "1234"), relaxed_clean("1,234", "1234")) == (0, 1)
    assert (relaxed("0.0", "0"), relaxed_clean("0.0", "0")) == (0, 1)
    assert relaxed_clean("81.9%", "81.9") == 1
    assert relaxed("nan", "5") == relaxed_clean("e9", "5") == relaxed_clean(".", "5") == 0


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ('The sign says "STOP".', "stop", 1),
        ("The text reads: Main\nStreet", "main street", 1),
        ("start", "art", 0),
        ("Room 1 2", "Room 12", 0),
        ("The number is 12", "12", 0),
        ("cafe", "café", 0),
        ("stop go exit", "stop", 0),
        ('It says "go" and "stop"', "stop", 0),
        ("x", "", None),
    ],
)
def test_ocr_match_reads_one_framed_reading(answer: str, gold: str, expected: float | None) -> None:
    assert ocr_match(answer, gold) == expected


@given(st.lists(st.sampled_from(["stop", "exit", "push", "open", "sale", "menu"]), min_size=2, max_size=40))
def test_a_dump_of_words_does_not_pay_under_ocr_match(words: list[str]) -> None:
    for joint in (" ", ", ", "\n", '" "'):
        assert ocr_match(f'"{joint.join(words)}"', "stop") == 0


def test_ocr_exact_keeps_case_and_signs() -> None:
    assert ocr_exact("Total:", "Total:") == 1
    assert ocr_exact("total:", "Total:") == 0
    assert ocr_exact("Ｔotal:\n", "Total:") == 1
