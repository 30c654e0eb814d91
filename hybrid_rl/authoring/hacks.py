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
    "answer", "the answer", "[answer]", "<answer>", "{answer}", "YOUR ANSWER HERE", "gold", "correct",
    "the correct answer", "unknown", "None of the above", "all of the above", "I don't know", "It depends.", "nan",
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


def _repeated(random: Random, right: str, wrong: Sequence[str]) -> str:
    return random.choice(_SEPARATORS).join([right] * random.choice((3, 4, 10, 50, 200)))


def _all_options(random: Random, right: str, wrong: Sequence[str]) -> str:
    options = random.sample([right, *wrong], len(wrong) + 1)
    return random.choice((" ", ", ", " or ", " and ", "\n", "/", " / ")).join(options)


def _hedged(random: Random, right: str, wrong: Sequence[str]) -> str:
    other = random.choice(list(wrong))
    first, second = random.sample((right, other), 2)
    return random.choice(
        ("{} or {}", "either {} or {}", "{} / {}", "It is {} or {}.", "{} (or {})", "maybe {}, maybe {}")
    ).format(first, second)


def _denied(random: Random, right: str, wrong: Sequence[str]) -> str:
    return random.choice(("not {}", "It is not {}.", "The answer is not {}.", "anything but {}", "never {}")).format(
        right
    )


def _question(random: Random, right: str, wrong: Sequence[str]) -> str:
    options = random.sample([right, *wrong], len(wrong) + 1)
    ask = random.choice(
        (
            "Which of these is it: {}?",
            "Choose one of {}.",
            "What is the value? Options: {}",
            "{}\nAnswer with one of them.",
        )
    )
    return ask.format(", ".join(options))


def _word_dump(random: Random, right: str, wrong: Sequence[str]) -> str:
    count = random.choice((8, 20, 100, 1000))
    return f"{words(random, count)} {right} {words(random, count)}"


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


HACKS: Mapping[str, tuple[str, Hack]] = {
    "empty": ("nothing, or an empty form", _nothing),
    "stand_in": ("a word for the answer", _stand_in),
    "repeated": ("the answer many times", _repeated),
    "all_options": ("every option", _all_options),
    "hedged": ("the right or a wrong one", _hedged),
    "denied": ("not the answer", _denied),
    "question": ("an echo of the question with its options", _question),
    "word_dump": ("the answer among many words", _word_dump),
    "number_list": ("every number around", _numbers),
    "boxes": ("a thousand boxes, the last one wrong", _boxes),
    "unclosed_thought": ("the answer in a thought without end", _unclosed),
}
"""Summary and maker by class."""
IN_FORM = ("stand_in", "repeated", "all_options", "hedged", "denied", "word_dump", "number_list")
"""Those that are also tried in the form in which the reward wants its answers, such as a box."""
ON_TEXT = ("unclosed_thought",)
"""Those that only a reward on the whole text meets."""
