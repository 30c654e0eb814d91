"""Math check: do answer and reference have the same value?

Integers are compared exactly and at once; everything else is read and compared by math-verify, with sympy underneath.
"""

from __future__ import annotations

import logging
import re

from hybrid_rl.scorer_pool.declare import warmed_by

_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
# Beyond this, reading the text may cost more than the answer is worth: a longer one is not accepted.
_MAX_CHARACTERS = 256
# Towers of powers, factorials and long exponents can keep a computer algebra system busy for ever.
_UNBOUNDED = re.compile(r"(\^|\*\*).*(\^|\*\*)|(\^|\*\*)\s*\{?\s*[-+]?\d{4,}|!")
# `1 2` is not a number; a reader that drops the blank would take it for 12.
_SPLIT_NUMBER = re.compile(r"\d\s+\d")
# Work left to do, or words: `4+0+2` has the value of 6, but writing a sum down is not adding it up.
_UNFINISHED = re.compile(r"=|(?<=[^\s({eE])\s*[-+*×·−]|\\text|\\cdot|\\times")


def _import_readers() -> None:
    _same_value("1/2", "0.5")


@warmed_by(_import_readers)
def math_answer(answer: str, gold: str) -> float:
    """1 if the answer has the value of the reference, else 0.

    Only the final answer is read, all of it: a number inside other text does not count. An answer that leaves sums or
    equations to the reader is wrong where the reference has none. Answers longer than 256 characters, and powers that
    cannot be bounded, are wrong unless they equal the reference to the letter.
    """
    answer, gold = answer.strip(), gold.strip()
    if answer == gold:
        return 1.0
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
        # Exact, and safe: int() refuses texts of more than 4300 digits, and answers are shorter here.
        return float(len(answer) <= _MAX_CHARACTERS and int(answer) == int(gold))
    if not answer or len(answer) > _MAX_CHARACTERS or _UNBOUNDED.search(answer) or _SPLIT_NUMBER.search(answer):
        return 0.0
    if _UNFINISHED.search(answer) and not _UNFINISHED.search(gold):
        return 0.0
    return float(_same_value(answer, gold))


def _same_value(answer: str, gold: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    # It warns, at every call, that no time limit is set.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    # Without a time limit of its own: math-verify's limit is a signal, which works in the main thread only.
    # The box says where the answer is, so that nothing is fished out of the text around it.
    read = [parse(rf"\boxed{{{text}}}", extraction_config=config, parsing_timeout=None) for text in (gold, answer)]
    if not all(read):
        return False
    return bool(verify(read[0], read[1], timeout_seconds=None))
