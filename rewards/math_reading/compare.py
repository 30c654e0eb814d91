"""Answer against reference: to the letter, as numbers, then by every reading of both that has the same structure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.math_reading import latex_reader
from rewards.math_reading.exact_numbers import same_number, simple_number
from rewards.math_reading.formula_reader import FormulaReader
from rewards.math_reading.limits import Unreadable
from rewards.math_reading.notation import fold
from rewards.math_reading.scalars import is_scalar
from rewards.math_reading.structures import same
from rewards.math_reading.tree import Call, Node, Num, Struct, Sym, walk
from rewards.math_reading.units import conversion, spelled_scales, split_unit

_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]{1,80}")
# Words of sentences; letters that are multiplied do not spell them between blanks.
_PROSE = re.compile(
    r"(?:^|\s)(?:the|is|are|was|we|it|its|so|of|get|this|that|thus|hence|has|have|costs?|then|there|be|to|my|our|if|for|how|"
    r"let|sum|an|as|just|by|with|not|need|can|will|would|in|at|on|from)(?:\s|,|$)",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_SHORT_WORDS = frozenset({"yes", "no", "odd", "even", "one", "two", "none", "all"})


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a text: a tree, and the unit that followed it (empty: none)."""

    tree: Node
    unit: str = ""


class Answer:
    """A text with its readings, made when they are asked for."""

    def __init__(self, text: str, *, reference: bool = False) -> None:
        self.folded = spelled_scales(fold(text))
        self.reference = reference
        self._readings: list[Reading] | None = None

    @property
    def letters(self) -> str:
        """The text without blanks and ornaments, for a comparison to the letter."""
        return re.sub(r"\s+", "", re.sub(r"(?<=\d)\s+(?=\d)", "_", _TEXT.sub(r"\1", self.folded)))

    @property
    def words(self) -> tuple[str, bool]:
        """The text as words in lower case, and whether it can be nothing else; empty where it is no words."""
        plain = " ".join(_TEXT.sub(r" \1 ", self.folded).split()).strip(" .\"'()")
        if not _WORDS.fullmatch(plain):
            return "", False
        certain = "\\text" in self.folded or max(map(len, plain.split())) >= 4 or plain.casefold() in _SHORT_WORDS
        return plain.casefold(), certain

    @property
    def readings(self) -> list[Reading]:
        if self._readings is None:
            self._readings = list(self._read())
        return self._readings

    def _read(self) -> list[Reading]:
        if not self.folded:
            return []
        found: list[Reading] = []
        whole = _trees(self.folded)
        split = split_unit(self.folded, glued_letters=not self.reference)
        if whole and not split:
            return [Reading(tree) for tree in whole]
        found += [Reading(tree) for tree in whole]
        if split:
            found += [Reading(tree, split[1]) for tree in _trees(split[0])]
        return found


def _trees(text: str) -> list[Node]:
    """The trees of a text: where a comma may be part of a number or stand between two, one for each."""
    found: list[Node] = []
    for commas in (True, False) if "," in text else (True,):
        try:
            tree = FormulaReader(text, commas=commas).read()
            if tree not in found:
                found.append(tree)
        except (Unreadable, RecursionError):  # comparing deep trees recurses too
            continue
    other = [_read_otherwise(tree) for tree in found if "log" in text or "C" in text]
    return found + [tree for tree in other if tree not in found]


def _read_otherwise(node: Node) -> Node:
    """`log` without a base may be the logarithm to base ten, and `C(5, 2)` a binomial coefficient."""
    if isinstance(node, Call):
        if pair := _pair_of_c(node):
            return Call("binomial", pair)
        arguments = tuple(_read_otherwise(a) for a in node.args)
        if node.name == "log":
            return Call("/", (Call("ln", arguments), Call("ln", (Num(Fraction(10)),))))
        return Call(node.name, arguments)
    if isinstance(node, Struct):
        return Struct(node.kind, tuple(_read_otherwise(i) for i in node.items), node.mark)
    return node


def same_answer(answer: str, gold: str) -> bool | None:
    """Whether the answer is the reference; None where the reference is empty or cannot be read."""
    answer, gold = answer.strip(), gold.strip()
    number, reference = simple_number(answer), simple_number(gold)
    if number and reference:
        return same_number(number, reference)
    try:
        expected = Answer(gold, reference=True)
    except Unreadable:
        return True if gold and answer == gold else None
    if not re.search(r"\w|∅|∞", expected.folded):
        return None
    if answer == gold:
        return True
    if not (expected.readings or expected.words[0]):
        return _by_second_reader(answer, gold, expected)
    try:
        given = Answer(answer)
    except Unreadable:
        return False
    try:
        return _same(given, expected)
    except RecursionError:
        return False


def _same(given: Answer, expected: Answer) -> bool:
    if given.letters == expected.letters and _balanced(given.letters):
        return True
    words, reference_words = given.words, expected.words
    if words[0] and words[0] == reference_words[0] and (words[1] or reference_words[1]):
        return True
    if _is_point(given) and _is_point(expected):  # not two coefficients that happen to be equal
        return any(same(x.tree, y.tree) for x, y in zip(given.readings[:1], expected.readings[:1], strict=True))
    return any(_same_reading(x, y) for y in expected.readings for x in given.readings)


def _is_point(answer: Answer) -> bool:
    """Whether it has the form `C(5, 2)` and nothing else."""
    return any(_pair_of_c(reading.tree) for reading in answer.readings)


def _pair_of_c(node: Node) -> tuple[Node, ...] | None:
    if isinstance(node, Call) and node.name == "*" and node.args[0] == Sym("C"):
        pair = node.args[1]
        if isinstance(pair, Struct) and pair.kind == "seq" and pair.mark == "()" and len(pair.items) == 2:
            return pair.items
    return None


def _same_reading(given: Reading, expected: Reading) -> bool:
    """Equal values, and units that measure the same. A unit on one side alone is taken for understood."""
    if given.unit and expected.unit:
        factor = conversion(given.unit, expected.unit)
        if factor is None:
            return False
        scaled = given.tree if factor == 1 else Call("*", (given.tree, Num(factor)))
        return same(scaled, expected.tree)
    if given.unit and not _is_quantity(expected.tree):
        return False
    return same(given.tree, expected.tree)


def _is_quantity(tree: Node) -> bool:
    """Whether a unit may follow: on values, and lists of values."""
    return is_scalar(tree) or (isinstance(tree, Struct) and tree.kind in ("list", "rel", "ratio", "seq", "pm"))


def _balanced(text: str) -> bool:
    return text.count("{") == text.count("}") and sum(map(text.count, "([")) == sum(map(text.count, ")]"))


def _by_second_reader(answer: str, gold: str, expected: Answer) -> bool | None:
    """The reference has a form of its own: an integral, a limit, a phrase with formulas."""
    try:
        given = Answer(answer)
    except Unreadable:
        return None
    if given.letters == expected.letters and _balanced(given.letters):
        return True
    reference = latex_reader.read_latex(expected.folded)
    if reference is None:
        return None
    found = latex_reader.read_latex(given.folded)
    return found is not None and latex_reader.same_tree(found, reference)


def is_several(gold: str) -> bool:
    """Whether the reference is a list or a set, so that several boxes may give it together."""
    try:
        readings = Answer(gold, reference=True).readings
    except Unreadable:
        return False
    return any(isinstance(n, Struct) and n.kind in ("list", "set", "pm") for r in readings for n in walk(r.tree))


def can_be_read(text: str) -> bool:
    """Whether the text as a whole is an answer, rather than prose with an answer in it."""
    try:
        answer = Answer(text)
    except Unreadable:
        return False
    if _PROSE.search(answer.folded):
        return False
    return bool(answer.readings) or (bool(answer.words[0]) and len(answer.words[0].split()) <= 4)
