"""Measurements to read off a strip of handwritten digits, with references as people write them.

A quantity has many right wordings: `42 cm`, `42 centimetres`, `forty-two cm`. Which of them a reference uses cannot be
known from the question. A rule on words credits one; the probability of the reference behind a thought tells right
thoughts from wrong ones all the same. Offline, and made on demand as the strips of `hybrid_rl.data.digits` are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from hybrid_rl.data.digits import check_chance, check_choice, check_least, digit_images, draw_strip, with_slips
from hybrid_rl.errors import ConfigError
from hybrid_rl.images import inline_png
from hybrid_rl.protocols import Split
from hybrid_rl.records import Message, Prompt, stable_seed

KINDS = {"wide": ("cm", "centimetres"), "heavy": ("kg", "kilograms"), "old": ("s", "seconds")}
"""Adjective of the question: symbol and name of the unit."""
FORMS = ("digits_symbol", "digits_name", "words_symbol", "words_name")
_DIGITS = 2
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_SMALL = tuple(_UNITS.split())
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


class Measurements:
    """Prompts that show a number from 0 to 99 and ask for it as a quantity; prompt `i` depends on nothing else.

    Args:
        forms: wordings that references are drawn from, whatever the question; see `FORMS`.
        num_prompts: how many different prompts there are.
        wrong_digit_rate: chance that a digit is another one in answer and thought than in the image; teaches the form
            of an answer while leaving its correctness to be learned.
        digit_pixels: width of a digit.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        name: str,
        split: Split,
        seed: int,
        forms: Sequence[str] = FORMS,
        num_prompts: int = 100_000,
        wrong_digit_rate: float = 0.0,
        digit_pixels: int = 28,
    ) -> None:
        check_choice(name, "split", split, ("train", "eval"))
        check_least(name, "num_prompts", num_prompts, 1)
        check_least(name, "digit_pixels", digit_pixels, 8)
        if not forms:
            raise ConfigError(f"data source '{name}': forms is empty; choose some of {', '.join(FORMS)}")
        for form in forms:
            check_choice(name, "form", form, FORMS)
        check_chance(name, "wrong_digit_rate", wrong_digit_rate)
        self._name = name
        self._split: Split = split
        self._seed = seed
        self._forms = tuple(forms)
        self._num_prompts = num_prompts
        self._wrong_digit_rate = wrong_digit_rate
        self._digit_pixels = digit_pixels
        self._images = digit_images(split)

    def __len__(self) -> int:
        return self._num_prompts

    def __getitem__(self, index: int) -> Prompt:
        if not 0 <= index < self._num_prompts:
            raise IndexError(f"data source '{self._name}' has prompts 0 to {self._num_prompts - 1}, not {index}")
        chance = random.Random(stable_seed("measurement", self._split, self._seed, index))
        digits = [chance.randrange(10) for _ in range(_DIGITS)]
        pixels = [chance.choice(self._images[digit]) for digit in digits]
        image = draw_strip(pixels, self._digit_pixels, chance, width_digits=_DIGITS)
        kind, form = chance.choice(list(KINDS)), chance.choice(self._forms)
        # A stream of its own, so that images and wordings are the same whatever the rate.
        slips = random.Random(stable_seed("wrong measurement", self._split, self._seed, index))
        claimed = with_slips(digits, self._wrong_digit_rate, slips)
        return Prompt(
            id=f"measure/{self._split}/{index:06d}",
            source=self._name,
            task="measure",
            messages=(Message(role="user", text=f"How {kind} is it?"),),
            gold=wording(10 * claimed[0] + claimed[1], kind, form),
            images=(inline_png(image),),
            thought=" ".join(map(str, claimed)),
            columns={"value": 10 * digits[0] + digits[1], "kind": kind, "form": form},
        )


def wording(number: int, kind: str, form: str) -> str:
    """A quantity in one of the `FORMS`: 42, "wide", "words_symbol" -> "forty-two cm"."""
    figure, _, unit = form.partition("_")
    return f"{number if figure == 'digits' else in_words(number)} {KINDS[kind][unit == 'name']}"


def in_words(number: int) -> str:
    """A number from 0 to 99 in English words."""
    if number < len(_SMALL):
        return _SMALL[number]
    tens, units = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_SMALL[units]}" if units else "")
