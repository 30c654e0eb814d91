"""Which kind of reward suits a reference answer (MiniCPM-V 4.5, arXiv 2509.18154, section 2.4.2).

The paper checks answers of few tokens by rule, and takes the model's own probability of the reference for those with
units and for long phrases, where rules err. Its threshold is not published; ours is below.
"""

from __future__ import annotations

import re
from typing import Literal

from hybrid_rl import Prompt
from rewards.instructions import read_constraints
from rewards.quantity import read_quantity

Shape = Literal["rule", "probability", "constraints"]

_MAX_RULE_WORDS = 3
_FORMULA = re.compile(r"\\[a-zA-Z]|[=^_{}<>]")
_UNIT_OF_LETTERS = re.compile(r"\d\s*(?:[^\W\d_]|[°µ%])")


def answer_shape(prompt: Prompt) -> Shape:
    """The shape of a prompt's reference answer.

    `constraints`: a list of instruction constraints. `probability`: a number with a unit, or more than three words that
    are no formula. `rule`: everything else.
    """
    gold = prompt.gold.strip()
    if read_constraints(gold) is not None:
        return "constraints"
    if _has_unit(gold) or (len(gold.split()) > _MAX_RULE_WORDS and not _FORMULA.search(gold)):
        return "probability"
    return "rule"


def _has_unit(gold: str) -> bool:
    if not _UNIT_OF_LETTERS.search(gold):  # spares the registry of units for bare numbers
        return False
    quantity = read_quantity(gold, units=True)
    return quantity is not None and quantity.unit is not None
