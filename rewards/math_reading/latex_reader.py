"""The second reader: LaTeX by math-verify (latex2sympy2_extended), for forms that the first does not know.

Only small texts without towers, factorials and long exponents are given to it, and the trees it makes are compared as
they are: no simplification is asked for that could go on for ever. It sets no time limit, which would need a signal.
"""

from __future__ import annotations

import logging
import re
from typing import Any

_MAX_CHARACTERS = 300
_MAX_OPERATIONS = 60
_HEAVY = re.compile(r"\^[^\s]*\^|\^\s*\{?\s*[-+]?\d{3,}|!|\d{30}|(?:\\frac[^\\]*){12}|\{.*\{.*\{.*\{.*\{.*\{")
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")


def read_latex(text: str) -> Any:
    """A sympy object, or None where the text is refused or not read. Works in every thread."""
    if len(text) > _MAX_CHARACTERS or _HEAVY.search(text) or _WORDS.search(text) or "\\" not in text:
        return None
    from math_verify import LatexExtractionConfig, parse

    # It warns, at every call, that no time limit is set.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    # The box says where the answer is, so that nothing is fished out of the text around it. Percents never come here:
    # whether they are read depends on the version of antlr.
    found = parse(rf"\boxed{{{text}}}", extraction_config=config, parsing_timeout=None, fallback_mode="no_fallback")
    return found[0] if found and not isinstance(found[0], str) else None


def same_tree(a: Any, b: Any) -> bool:
    """Whether two sympy objects are equal as written, or as expanded polynomials."""
    import sympy

    if type(a) is not type(b) and not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
        return False
    if a == b:
        return True
    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
        return False
    difference = a - b
    return difference.count_ops() <= _MAX_OPERATIONS and sympy.expand(difference) == 0
