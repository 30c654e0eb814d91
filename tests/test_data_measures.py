"""Measurements: references in many wordings, and the grader that knows them all."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_rl.data.measures import FORMS, KINDS, Measurements, wording
from hybrid_rl.errors import ConfigError
from rewards.spelled_quantity import spelled_quantity
from rewards.text_match import text_match


def test_wordings_by_hand() -> None:
    assert [wording(42, "wide", form) for form in FORMS] == [
        "42 cm",
        "42 centimetres",
        "forty-two cm",
        "forty-two centimetres",
    ]
    assert wording(0, "old", "words_symbol") == "zero s" and wording(70, "heavy", "words_name") == "seventy kilograms"


@settings(max_examples=50)
@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from(sorted(KINDS)), st.sampled_from(FORMS * 2), st.data())
def test_every_wording_of_a_quantity_and_no_other_quantity_is_right(
    number: int, other: int, kind: str, form: str, data: st.DataObject
) -> None:
    gold, said = wording(number, kind, form), data.draw(st.sampled_from(FORMS))
    assert spelled_quantity(wording(number, kind, said), gold) == 1
    assert spelled_quantity(wording(other, kind, said), gold) == float(other == number)
    # A rule on words pays for one wording alone: the noise that the comparison is about.
    assert text_match(wording(number, kind, said), gold) == float(wording(number, kind, said) == gold)


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("0.42 m", "forty-two cm", 1),
        ("one hundred and five seconds", "105 s", 1),
        ("a hundred s", "100 s", 1),
        ("sixty seconds", "1 minute", 1),
        ("four cm", "14 cm", 0),
        ("fourteen cm", "40 cm", 0),
        ("forty-two kg", "42 cm", 0),
        ("forty-two", "42 cm", 0),
        ("forty cm two", "42 cm", 0),
        ("42 cm or 43 cm", "42 cm", 0),
        ("twenty cm", "a few", None),
        ("twenty cm", "", None),
    ],
)
def test_spelled_quantities(answer: str, gold: str, expected: float | None) -> None:
    assert spelled_quantity(answer, gold) == expected


def test_a_prompt_depends_on_its_number_alone_and_its_wording_on_nothing_it_shows() -> None:
    source = Measurements("m", "train", 3)
    prompts = [source[number] for number in range(200)]
    again = Measurements("m", "train", 3)[199]
    assert (again.gold, again.images) == (prompts[199].gold, prompts[199].images)
    assert all(spelled_quantity(f"{p.columns['value']} {KINDS[p.columns['kind']][0]}", p.gold) == 1 for p in prompts)
    assert all(p.thought == " ".join(f"{p.columns['value']:02d}") for p in prompts)
    forms = Counter((p.messages[0].text, p.columns["form"]) for p in prompts)
    assert len(forms) == len(KINDS) * len(FORMS) and min(forms.values()) > 5


def test_wrong_digits_change_the_answer_and_not_the_picture() -> None:
    right, wrong = Measurements("m", "train", 0), Measurements("m", "train", 0, wrong_digit_rate=1.0)
    for number in range(20):
        assert right[number].images == wrong[number].images
        assert spelled_quantity(wrong[number].gold, right[number].gold) == 0


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"forms": []}, "forms is empty"),
        ({"forms": ["digits_symbl"]}, "did you mean 'digits_symbol'"),
        ({"wrong_digit_rate": 2}, "wrong_digit_rate is 2"),
        ({"num_prompts": 0}, "num_prompts is 0"),
    ],
)
def test_bad_arguments(args: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Measurements("m", "train", 0, **args)  # type: ignore[arg-type]
