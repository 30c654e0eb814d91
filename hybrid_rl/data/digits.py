"""Strips of real handwritten digits to read or to add up: a small multimodal task that needs no download.

The pen strokes come from scikit-learn's bundled digits (1797 grey images of 8x8, 43 writers). A fixed part of them is
kept for evaluation, so that a model is never evaluated on handwriting that it was trained on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import accumulate
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from hybrid_rl.errors import ConfigError
from hybrid_rl.images import inline_png
from hybrid_rl.protocols import Split
from hybrid_rl.records import Message, Prompt, stable_seed

Task = Literal["read", "sum"]
Pixels = npt.NDArray[np.uint8]

_QUESTIONS = {"read": "Read the digits.", "sum": "Add the digits."}
_EVAL_SHARE = 0.2
_BRIGHTEST = 16  # the data set counts 0..16


class DigitStrips:
    """Prompts that show a strip of digits, made on demand: prompt `i` depends on nothing but the arguments and `i`.

    Args:
        task: `read` asks for the digits ("40215"), `sum` for their sum ("12").
        min_digits, max_digits: bounds of a strip's length, drawn uniformly.
        num_prompts: how many different prompts there are.
        wrong_digit_rate: chance that a digit is another one in answer and thought than in the image; teaches the form
            of an answer while leaving its correctness to be learned.
        digit_pixels: width of a digit; a strip has room for `max_digits` and a seventh of a digit more.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        name: str,
        split: Split,
        seed: int,
        task: Task,
        min_digits: int = 2,
        max_digits: int = 6,
        num_prompts: int = 100_000,
        wrong_digit_rate: float = 0.0,
        digit_pixels: int = 28,
    ) -> None:
        check_choice(name, "split", split, get_args(Split))
        check_choice(name, "task", task, get_args(Task))
        check_least(name, "min_digits", min_digits, 1)
        check_least(name, "max_digits", max_digits, 1)
        check_least(name, "num_prompts", num_prompts, 1)
        check_least(name, "digit_pixels", digit_pixels, 8)
        if min_digits > max_digits:
            raise ConfigError(
                f"data source '{name}': min_digits {min_digits} is above max_digits {max_digits}; swap or change them"
            )
        check_chance(name, "wrong_digit_rate", wrong_digit_rate)
        self._name = name
        self._split: Split = split
        self._seed = seed
        self._task: Task = task
        self._lengths = (min_digits, max_digits)
        self._num_prompts = num_prompts
        self._wrong_digit_rate = wrong_digit_rate
        self._digit_pixels = digit_pixels
        self._images = digit_images(split)

    def __len__(self) -> int:
        return self._num_prompts

    def __getitem__(self, index: int) -> Prompt:
        if not 0 <= index < self._num_prompts:
            raise IndexError(f"data source '{self._name}' has prompts 0 to {self._num_prompts - 1}, not {index}")
        chance = random.Random(stable_seed("digit strip", self._split, self._seed, self._task, index))
        digits = [chance.randrange(10) for _ in range(chance.randint(*self._lengths))]
        pixels = [chance.choice(self._images[digit]) for digit in digits]
        image = draw_strip(pixels, self._digit_pixels, chance, width_digits=self._lengths[1])
        claimed = self._claimed(digits, index)
        return Prompt(
            id=f"{self._task}/{self._split}/{index:06d}",
            source=self._name,
            task=self._task,
            messages=(Message(role="user", text=_QUESTIONS[self._task]),),
            gold=_joined(claimed) if self._task == "read" else str(sum(claimed)),
            images=(inline_png(image),),
            thought=" ".join(map(str, claimed)) if self._task == "read" else running_sum(claimed),
            columns={"digits": _joined(digits), "length": len(digits)},
        )

    def _claimed(self, digits: Sequence[int], index: int) -> list[int]:
        """The digits that answer and thought speak of."""
        # A stream of its own, so that the images are the same whatever the rate.
        chance = random.Random(stable_seed("wrong digits", self._split, self._seed, self._task, index))
        return with_slips(digits, self._wrong_digit_rate, chance)


def with_slips(digits: Sequence[int], rate: float, chance: random.Random) -> list[int]:
    """The digits, each replaced by a wrong one with probability `rate`."""
    return [(digit + chance.randrange(1, 10)) % 10 if chance.random() < rate else digit for digit in digits]


@lru_cache(maxsize=2)
def digit_images(split: Split) -> tuple[tuple[Pixels, ...], ...]:
    """The images of a split by digit, white (255) on black (0), each [8, 8]. The splits share no image."""
    from sklearn.datasets import load_digits  # a second to import; only who asks for digits pays it

    bundle = load_digits()
    by_digit = []
    for digit in range(10):
        grey = bundle.images[bundle.target == digit]
        pixels = np.round(grey * (255 / _BRIGHTEST)).astype(np.uint8)
        order = list(range(len(pixels)))
        random.Random(stable_seed("digit split", digit)).shuffle(order)
        num_eval = round(_EVAL_SHARE * len(order))
        chosen = order[:num_eval] if split == "eval" else order[num_eval:]
        by_digit.append(tuple(pixels[i] for i in sorted(chosen)))
    return tuple(by_digit)


def draw_strip(digits: Sequence[Pixels], digit_pixels: int, chance: random.Random, width_digits: int) -> Image.Image:
    """Set digits side by side, each a little off its place.

    Args:
        width_digits: room for so many digits; a shorter strip is black behind its last one.

    Returns:
        An RGB image. All strips of a source have one size, so that they batch well.
    """
    slack = digit_pixels // 7
    strip = Image.new("L", (width_digits * digit_pixels + slack, digit_pixels + slack))
    for place, digit in enumerate(digits):
        large = Image.fromarray(digit).resize((digit_pixels, digit_pixels), Image.Resampling.BICUBIC)
        left, top = place * digit_pixels + chance.randint(0, slack), chance.randint(0, slack)
        box = (left, top, left + digit_pixels, top + digit_pixels)
        # Neighbours may overlap by the slack; the lighter pixel wins, so that no stroke is cut.
        strip.paste(ImageChops.lighter(strip.crop(box), large), box)
    return strip.convert("RGB")


def running_sum(digits: Sequence[int]) -> str:
    """The sum worked out digit by digit: 4, 0, 2 -> "4+0=4+2=6"."""
    steps = (f"+{digit}={total}" for digit, total in zip(digits[1:], list(accumulate(digits))[1:], strict=True))
    return str(digits[0]) + "".join(steps)


def _joined(digits: Sequence[int]) -> str:
    return "".join(map(str, digits))


def check_choice(name: str, key: str, value: object, known: Sequence[str]) -> None:
    """Raise a ConfigError unless an argument of a source is among the known ones."""
    if value not in known:
        near = get_close_matches(str(value), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(known)}"
        raise ConfigError(f"data source '{name}': there is no {key} '{value}'; {hint}")


def check_least(name: str, key: str, value: object, least: int) -> None:
    """Raise a ConfigError unless an argument of a source is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"data source '{name}': {key} is {value!r}; it must be a whole number of at least {least}")


def check_chance(name: str, key: str, value: object) -> None:
    """Raise a ConfigError unless an argument of a source is a number from 0 to 1."""
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError(f"data source '{name}': {key} is {value!r}; it is a chance, from 0 to 1")
