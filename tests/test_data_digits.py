"""Digit strips: honest images, consistent answers, nothing shared between training and evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from hybrid_rl.data.digits import DigitStrips, digit_images
from hybrid_rl.errors import ConfigError
from hybrid_rl.images import open_image
from hybrid_rl.protocols import PromptSource


def strips(**changed: Any) -> DigitStrips:
    return DigitStrips(**{"name": "digits", "split": "train", "seed": 3, "task": "read", **changed})


def test_training_and_evaluation_share_no_handwriting() -> None:
    train = {image.tobytes() for images in digit_images("train") for image in images}
    held_out = {image.tobytes() for images in digit_images("eval") for image in images}
    assert not train & held_out
    assert len(train) + len(held_out) == 1797
    assert all(len(images) > 30 for images in digit_images("eval"))


@pytest.mark.parametrize("task", ["read", "sum"])
def test_a_prompt_depends_on_its_index_and_not_on_what_was_asked_before(task: str) -> None:
    forwards, backwards = strips(task=task), strips(task=task)
    expected = [forwards[i] for i in range(20)]
    assert [backwards[i] for i in reversed(range(20))] == expected[::-1]
    assert len({prompt.images[0].read_bytes() for prompt in expected}) == 20


@pytest.mark.parametrize("changed", [{"seed": 4}, {"split": "eval"}, {"task": "sum"}])
def test_seed_split_and_task_each_give_other_strips(changed: dict[str, Any]) -> None:
    a, b = strips(), strips(**changed)
    assert [a[i].columns["digits"] for i in range(10)] != [b[i].columns["digits"] for i in range(10)]


def test_the_name_does_not_change_the_strip() -> None:
    assert strips(name="other")[5].images == strips()[5].images
    assert strips(name="other")[5].source == "other"


def test_read_prompts_are_complete() -> None:
    prompt = strips()[123]
    assert isinstance(strips(), PromptSource)
    assert prompt.id == "read/train/000123"
    assert (prompt.source, prompt.task) == ("digits", "read")
    assert [(m.role, m.text) for m in prompt.messages] == [("user", "Read the digits.")]
    assert prompt.gold == prompt.columns["digits"]
    assert prompt.thought == " ".join(prompt.gold)
    assert prompt.columns["length"] == len(prompt.gold)


def test_sum_thoughts_work_out_their_answer() -> None:
    source = strips(task="sum")
    for i in range(100):
        prompt = source[i]
        digits = [int(d) for d in prompt.columns["digits"]]
        assert prompt.gold == str(sum(digits))
        first, *steps = prompt.thought.split("+")
        total = int(first)
        assert total == digits[0]
        for step, digit in zip(steps, digits[1:], strict=True):
            added, result = step.split("=")
            total += int(added)
            assert int(added) == digit and int(result) == total
        assert prompt.thought.split("=")[-1] == prompt.gold


def test_a_thought_about_a_single_digit_is_the_digit() -> None:
    prompt = strips(task="sum", min_digits=1, max_digits=1)[0]
    assert prompt.thought == prompt.gold == prompt.columns["digits"]


def test_lengths_cover_the_range_asked_for() -> None:
    source = strips(min_digits=3, max_digits=5)
    assert {source[i].columns["length"] for i in range(60)} == {3, 4, 5}


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_about_the_given_rate_of_digits_is_wrong_and_the_thought_agrees_with_the_answer(rate: float) -> None:
    source = strips(wrong_digit_rate=rate)
    wrong = total = 0
    for i in range(600):
        prompt = source[i]
        assert prompt.thought == " ".join(prompt.gold)
        wrong += sum(a != b for a, b in zip(prompt.gold, prompt.columns["digits"], strict=True))
        total += prompt.columns["length"]
    assert wrong / total == pytest.approx(rate, abs=0.04)


def test_wrong_digits_change_the_answer_but_not_the_image() -> None:
    honest, wrong = strips(task="sum"), strips(task="sum", wrong_digit_rate=1.0)
    assert [wrong[i].images for i in range(10)] == [honest[i].images for i in range(10)]
    assert [wrong[i].gold for i in range(10)] != [honest[i].gold for i in range(10)]
    assert wrong[0].thought.split("=")[-1] == wrong[0].gold


def test_a_strip_is_white_on_black_and_has_room_for_the_longest() -> None:
    source = strips()
    for i in range(10):
        image = open_image(source[i].images[0])
        assert image.size == (28 * 6 + 4, 32)
        behind = image.convert("L").crop((28 * source[i].columns["length"] + 4, 0, image.width, 32))
        assert not behind.width or behind.getextrema() == (0, 0)
        assert image.mode == "RGB"
        assert image.convert("L").getextrema()[0] == 0
        assert sum(image.convert("L").histogram()[:64]) > image.width * image.height / 2


def test_an_index_past_the_end_is_an_index_error() -> None:
    source = strips(num_prompts=3)
    assert len(list(source)) == len(source) == 3  # type: ignore[call-overload]
    for index in (3, -1):
        with pytest.raises(IndexError, match="prompts 0 to 2"):
            source[index]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": "red"}, "no task 'red'; did you mean 'read'"),
        ({"task": "xyz"}, "choose one of read, sum"),
        ({"split": "test"}, "no split 'test'"),
        ({"min_digits": 5, "max_digits": 4}, "min_digits 5 is above max_digits 4"),
        ({"min_digits": 0}, "min_digits is 0"),
        ({"max_digits": "six"}, "max_digits is 'six'"),
        ({"num_prompts": 0}, "num_prompts is 0"),
        ({"digit_pixels": 4}, "digit_pixels is 4"),
        ({"wrong_digit_rate": 1.5}, "wrong_digit_rate is 1.5"),
        ({"wrong_digit_rate": "half"}, "wrong_digit_rate is 'half'"),
        ({"wrong_digit_rate": float("nan")}, "wrong_digit_rate is nan"),
    ],
)
def test_impossible_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        strips(**changed)
