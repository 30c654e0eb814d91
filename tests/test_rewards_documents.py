"""Edit distances, documents, charts, visual questions and tables: parity with the libraries, and examples by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.document_qa import anls, anls_star
from rewards.edit_distance import cer, edit_similarity, indel, levenshtein, wer
from rewards.ocrbench import ocrbench, ocrbench_cn, ocrbench_hme, ocrbench_v2_vqa
from rewards.table_html import teds, teds_structure
from rewards.visual_qa import vqa_accuracy

WORDS = st.lists(st.sampled_from(["red", "boat", "on", "the", "sea"]), min_size=1, max_size=8).map(" ".join)
TEXTS = st.text(alphabet="abC é", max_size=20)


def plain_levenshtein(a: str, b: str) -> int:
    """The recurrence, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@given(TEXTS, TEXTS)
def test_distances(a: str, b: str) -> None:
    assert levenshtein(a, b) == plain_levenshtein(a, b) == levenshtein(b, a)
    assert indel(a, b) == indel(b, a)
    similarity = edit_similarity(a, b)
    assert similarity is None if not b.strip() else similarity is not None and 0 <= similarity <= 1


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_error_rates_are_those_of_jiwer(pairs: list[tuple[str, str]]) -> None:
    jiwer = pytest.importorskip("jiwer")
    found, wanted = [list(side) for side in zip(*pairs, strict=True)]
    assert cer(found, wanted) == pytest.approx(jiwer.cer(wanted, found))
    assert wer(found, wanted) == pytest.approx(jiwer.wer(wanted, found))


def test_error_rates_by_hand() -> None:
    assert cer("wereolf", "werewolf") == 1 / 8
    assert wer("one four", "one two three") == pytest.approx(2 / 3)
    assert cer("", "abc") == 1
    assert cer("abc", "") is None


def test_anls_by_hand() -> None:
    """Sitting and kitten differ in three of seven characters; half of the characters wrong is nothing."""
    assert anls("kitten", ["sitting"]) == pytest.approx(1 - 3 / 7)
    assert anls("ab", ["ac"]) == 0
    assert anls(" Coca  cola", ["pepsi", "Coca Cola"]) == 1
    assert anls("x", []) is None


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        (["b", "a"], ["a", "b"], 1.0),
        ('```json\n{"a": "x"}\n```', {"a": "x", "b": "y"}, 0.5),
        ("st. louis", {"one_of": ["saint louis", "St. Louis"]}, 1.0),
        ({"a": "x", "c": "z"}, '{"a": "x"}', 0.5),
        (None, None, 1.0),
        ("not json", {"a": "x"}, 0.0),
        (["x"] * 1000, ["x"], 0.0),
        ("x", " ", None),
    ],
)
def test_anls_star(answer: Any, gold: Any, expected: float | None) -> None:
    assert anls_star(answer, gold) == expected


def test_ocrbench() -> None:
    assert ocrbench("It says STOP\nhere", "stop here") == 1
    assert ocrbench("ＡＢＣ", "abc") == 1
    assert ocrbench("㎏", "kg") == 0
    assert (ocrbench_hme("x ^ 2", "x^2"), ocrbench_hme("X^2", "x^2")) == (1, 0)
    assert ocrbench_cn("答案是北 京", "北京") == 1
    assert ocrbench_v2_vqa("the total is two", ["one two", "two"]) == 1
    # Five words: one character of 19 is wrong.
    assert ocrbench_v2_vqa("one two three for x", "one two three fou x") == pytest.approx(1 - 1 / 19)
    assert ocrbench("x", "") is None


def test_vqa_accuracy_leaves_one_annotator_out() -> None:
    assert vqa_accuracy("yes", ["yes"] * 3 + ["no"] * 7) == pytest.approx(0.9)
    assert vqa_accuracy("yes", ["yes"] * 4 + ["no"] * 6) == 1
    assert vqa_accuracy("The 2 cats.", ["two cats"] * 10) == 1
    assert vqa_accuracy("dont", "don't") == 1


TABLE = "<table><tr><td>a</td><td>b</td></tr></table>"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (TABLE, 1.0),
        ("Here: <table>\n<tr><th> a </th><th><b>b</b></th></tr></table> done", 1.0),
        # Of four nodes one cell has half of its text: 1 - 0.5 / 4.
        (TABLE.replace("b<", "bx<"), 1 - 0.5 / 4),
        # One of four nodes is missing.
        ("<table><tr><td>a</td></tr></table>", 0.75),
        (TABLE.replace("<td>b", '<td colspan="2">b'), 0.75),
        ("no table", 0.0),
        ("<table>" + "<tr><td>a</td></tr>" * 500, 0.0),
    ],
)
def test_teds_by_hand(answer: str, expected: float) -> None:
    assert teds(answer, TABLE) == pytest.approx(expected)


def test_teds_on_structure_does_not_read_cells() -> None:
    assert teds_structure(TABLE.replace("b<", "zzz<"), TABLE) == 1
    assert teds(TABLE, "no table") is None


CELLS = st.lists(st.lists(st.sampled_from(["", "1", "total", "x y"]), min_size=1, max_size=3), min_size=1, max_size=3)


@given(CELLS, CELLS)
def test_teds_is_bounded_and_symmetric(a: list[list[str]], b: list[list[str]]) -> None:
    one, other = [
        "<table>" + "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows) + "</table>"
        for rows in (a, b)
    ]
    score = teds(one, other)
    assert score is not None and 0 <= score <= 1
    assert score == pytest.approx(teds(other, one))
    assert (score == 1) == (a == b)
