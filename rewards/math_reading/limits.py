"""What may be read and computed. Everything is checked before work is done, so that no text can keep a process busy."""

from __future__ import annotations

MAX_CHARACTERS = 4096  # of one answer; the longest true answers in use are integers of a few hundred digits
MAX_DIGITS = 4000  # of one number; Python refuses to read integers of more than 4300
MAX_RESPONSE = 4_000_000  # of a whole response, of which only the end is searched
MAX_DEPTH = 48  # nested brackets, powers, fractions
MAX_NODES = 1500  # numbers, symbols and operations in one answer
MAX_ITEMS = 256  # members of a list, a set, a matrix
MAX_EXACT_BITS = 60_000  # numerator or denominator of an exact value
MAX_EXACT_FACTORIAL = 3000
MAX_LOG2 = 2.0**22  # size of a value that is computed with limited precision
MAX_FACTORIAL = 10.0**7
MAX_TERMS = 400  # of a finite sum or product
MAX_STEPS = 20_000  # numeric operations spent on one comparison


class Unreadable(Exception):
    """The text is no answer that can be read; the message says why."""


class Undefined(Exception):
    """A value that does not exist (division by zero) or that is too large to be computed."""
