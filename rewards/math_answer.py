"""Mathematics by value: `math_answer` for short final answers, and the readings of a whole response beside it.

Integers are compared exactly and at once. Everything else goes through `math_reading`: exact numbers, readers for
LaTeX, plain and computer-algebra notation, structures of one kind, 50-digit values at seeded points. No text is
executed, and sizes are limited before anything is computed, so that no call needs a time limit.
"""

from __future__ import annotations

import re

from hybrid_rl.scorer_pool.declare import blames_reference, warmed_by
from rewards.code_fence import bare
from rewards.final_answer import box_run, boxed_answer, boxes, final_answer, unboxed, without_special_tokens
from rewards.math_reading.compare import is_several, same_answer
from rewards.math_reading.latex_reader import read_latex
from rewards.math_reading.units import is_known_unit

_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
# Beyond this, reading the text may cost more than the answer is worth: a longer one is not accepted.
_MAX_CHARACTERS = 256
# `1 2` is not a number; a reader that drops the blank would take it for 12.
_SPLIT_NUMBER = re.compile(r"\d\s+\d")
# Work left to do, or words: `4+0+2` has the value of 6, but writing a sum down is not adding it up.
_UNFINISHED = re.compile(r"=|(?<=[^\s({eE])\s*[-+*×·−]|\\text|\\cdot|\\times")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
# How far a variable is from a point: nothing in there can be worked out.
_DISTANCE = re.compile(r"\|[^|]*[A-Za-z][^|]*\|")
_INEQUALITY = re.compile(r"[<>≤≥]|\\[lg](?:eq?|t)")


def _import_readers() -> None:
    same_answer("\\frac{1}{x+1}", "1/(1+x)")
    read_latex("\\frac{1}{x}")  # the second reader builds its tables at the first call


@warmed_by(_import_readers)
@blames_reference
def math_answer(answer: str, gold: str) -> float | None:
    """1 if the answer has the value of the reference, else 0; None where the reference is empty or cannot be read.

    Only the final answer is read, all of it: a number inside other text does not count. An answer that leaves sums or
    equations to the reader is wrong where the reference has none; `math_value` accepts it. Answers longer than 256
    characters are wrong unless they equal the reference to the letter.
    """
    answer, gold = bare(answer.strip()), gold.strip()
    if answer and answer == gold:
        return 1.0
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
        # Exact, and safe: int() refuses texts of more than 4300 digits, and answers are shorter here.
        return float(len(answer) <= _MAX_CHARACTERS and int(answer) == int(gold))
    if not gold:
        return None
    if not answer or len(answer) > _MAX_CHARACTERS or _SPLIT_NUMBER.search(answer):
        return 0.0
    if _is_unfinished(answer) and not _is_unfinished(gold):
        return 0.0
    return math_value(answer, gold)


def _is_unfinished(text: str) -> bool:
    if _INEQUALITY.search(text):
        text = _DISTANCE.sub("", text)
    text = _TEXT.sub(lambda words: "" if is_known_unit(words[1]) else words[0], text)
    return bool(_UNFINISHED.search(text))


@warmed_by(_import_readers)
@blames_reference
def math_value(answer: str, gold: str) -> float | None:
    """1 if the answer, which is nothing but an answer, equals the reference by value; None for an unreadable reference.

    Numbers (fractions, mixed, percent, separators, scientific, any script), expressions, equations, relations,
    intervals, sets, lists, tuples, matrices, ratios, units and currencies; LaTeX, plain or computer-algebra notation.
    """
    return _score(same_answer(_content(without_special_tokens(answer)), _content(gold)))


@warmed_by(_import_readers)
@blames_reference
def math_response(answer: str, gold: str) -> float | None:
    """As `math_value`, on the final answer that a free text gives (`rewards.final_answer`)."""
    reference = _content(gold)
    found = final_answer(answer)
    score = same_answer(found or "", reference)
    if score is False and (run := _several(answer, reference)) is not None:
        score = same_answer(run, reference)
    if score is None and found and answer.strip() == gold.strip():
        score = True
    return _score(score)


@warmed_by(_import_readers)
@blames_reference
def math_boxed(text: str, gold: str) -> float | None:
    """As `math_response`, but the answer must stand in a closed `\\boxed{}` or `\\fbox{}` after the thought."""
    reference = _content(gold)
    found = boxed_answer(text)
    score = same_answer(found or "", reference)
    if score is False and found and (run := _several(text, reference)) is not None:
        score = same_answer(run, reference)
    return _score(score)


@warmed_by(_import_readers)
@blames_reference
def math_final(text: str, gold: str) -> float | None:
    """As `math_response`, on the whole text of a response: only what follows its closed thought counts."""
    return math_response(text, gold)


def _score(same: bool | None) -> float | None:
    return None if same is None else float(same)


def _several(answer: str, reference: str) -> str | None:
    """The last boxes as a list, where the reference is one."""
    return box_run(answer) if is_several(reference) else None


def _content(text: str) -> str:
    """What a text says with its boxes: the only box, several boxes as a list, else the text."""
    text = text.rpartition("####")[2] if "####" in text else text
    found = boxes(text)
    if not found:
        return text.strip()
    distinct = list(dict.fromkeys(unboxed(content) for content, _, _ in found))
    return ", ".join(distinct)
