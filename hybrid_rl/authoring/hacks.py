"""Answers that know nothing, or everything at once. None may be paid as a right answer is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random

from hybrid_rl.authoring.noise import words

Hack = Callable[[Random, str, Sequence[str]], str | None]
"""(generator, right answer, wrong answers) -> a text; None where there is no such text for the answer.

The wrong answers are the other options where there are options, else other texts of the same kind.
"""

_NOTHING = (
    "", " ", "\n", "\t \n", ".", "...", "-", "?", "$$", "$ $", "\\boxed{}", "\\boxed{ }", "<answer></answer>", "**",
    "{}", "[]", "()", "\u200b", "\u00a0", "The answer is", "Answer:", "\\text{}", '""', "''", "``", "```\n```",
    "<think></think>",
)  # fmt: skip
_STANDINS = (
    "answer", "the answer", "[answer]", "<answer>", "{answer}", "YOUR ANSWER HERE", "gold",
    "unknown", "None of the above", "all of the above", "I don't know", "It depends.", "nan",
    "None", "null", "inf", "?", "as above", "see above", "same", "\\boxed{answer}", "%s", "{gold}", "{0}", "*", ".*",
    "(.*)", "|", "undefined", "any",
)  # fmt: skip
_SEPARATORS = (" ", ", ", "; ", "\n", " | ", "\t")


def _nothing(random: Random, right: str, wrong: Sequence[str]) -> str | None:
    text = "".join(random.choices(_NOTHING, k=random.randint(1, 3)))
    return text if right.strip() else None


def _stand_in(random: Random, right: str, wrong: Sequence[str]) -> str | None:
    text = random.choice(_STANDINS)
    return text if text.strip("[]{}<>").casefold() not in right.casefold() else None


def _among(random: Random, right: str, wrong: Sequence[str]) -> list[str]:
    """All options in random order, the right one neither first nor last where there are enough: it is not the pick."""
    others = random.sample(list(wrong), len(wrong))
    others.insert(random.randint(1, max(1, len(others) - 1)), right)
    return others


def _repeated(random: Random, right: str, wrong: Sequence[str]) -> str:
    """All options over and over; a right answer alone, however often, is still right."""
    return random.choice(_SEPARATORS).join(_among(random, right, wrong) * random.choice((3, 30, 200)))


def _all_options(random: Random, right: str, wrong: Sequence[str]) -> str:
    return random.choice((" ", ", ", " or ", " and ", "\n", "/", " / ")).join(_among(random, right, wrong))


def _hedged(random: Random, right: str, wrong: Sequence[str]) -> str:
    first, second = random.sample((right, random.choice(list(wrong))), 2)
    forms = ("{} or {}", "either {} or {}", "{} / {}", "It is {} or {}.", "{} (or {})", "maybe {}, maybe {}")
    return random.choice(forms).format(first, second)


def _denied(random: Random, right: str, wrong: Sequence[str]) -> str | None:
    if right[:1] in ("<", "[", "{", "("):  # nobody denies a table or a box
        return None
    return random.choice(("not {}", "It is not {}.", "The answer is not {}.", "anything but {}", "never {}")).format(
        right
    )


def _question(random: Random, right: str, wrong: Sequence[str]) -> str:
    forms = ("Which of these is it: {}?", "Choose one of {}.", "What is the value? Options: {}", "{}\nAnswer with one.")
    return random.choice(forms).format(", ".join(_among(random, right, wrong)))


def _word_dump(random: Random, right: str, wrong: Sequence[str]) -> str:
    """The right answer and wrong ones among many words."""
    count = random.choice((8, 20, 100, 300))
    return f" {words(random, count)} ".join(["", *_among(random, right, wrong), ""])


def _numbers(random: Random, right: str, wrong: Sequence[str]) -> str | None:
    """All integers around the right one."""
    if not re.fullmatch(r"-?\d{1,9}", right.strip()):
        return None
    value, before, after = int(right), random.choice((1, 5, 50, 500)), random.choice((1, 5, 50, 500))
    return random.choice(_SEPARATORS).join(str(n) for n in range(value - before, value + after + 1))


def _boxes(random: Random, right: str, wrong: Sequence[str]) -> str:
    """Up to a thousand boxes; the right answer is in some of them, and not in the last."""
    count = random.choice((2, 3, 10, 100, 1000))
    content = [right, *random.choices([right, *wrong], k=count - 2)] if count > 2 else [right]
    return random.choice(_SEPARATORS).join(f"\\boxed{{{text}}}" for text in [*content, random.choice(list(wrong))])


def _unclosed(random: Random, right: str, wrong: Sequence[str]) -> str:
    """The answer in a thought that does not end."""
    return random.choice(("<think>{}", "<think>It is \\boxed{{{}}}", "<think>x</think><think>The answer is {}")).format(
        right
    )


HACKS: Mapping[str, Hack] = {
    "empty": _nothing,
    "stand_in": _stand_in,
    "repeated": _repeated,
    "all_options": _all_options,
    "hedged": _hedged,
    "denied": _denied,
    "question": _question,
    "word_dump": _word_dump,
    "number_list": _numbers,
    "boxes": _boxes,
    "unclosed_thought": _unclosed,
}
"""By class; docs/write_a_reward.md says what each is."""
IN_FORM = ("stand_in", "repeated", "all_options", "hedged", "denied", "word_dump", "number_list")
"""Those that are also tried in the form in which the reward wants its answers, such as a box."""
ON_TEXT = ("unclosed_thought",)
"""Those that only a reward on the whole text meets."""
