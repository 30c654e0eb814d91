"""What a reward is fuzzed with: references that it pays in full, found by asking it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hybrid_rl.authoring.cases import LabelledCase
from hybrid_rl.authoring.check import catalog
from hybrid_rl.authoring.subject import Subject
from hybrid_rl.errors import UserError
from hybrid_rl.scorer_pool.verdict import Verdict

Ask = Callable[[Sequence[tuple[str, Any, Mapping[str, Any]]]], list[Verdict]]
"""Verdicts on (answer, gold, columns) triples."""

_FORMS = ("{}", "\\boxed{{{}}}", "The answer is {}.", "<answer>{}</answer>")
"""How an answer may have to be given; the first one that is paid is taken."""
_TEXTS = (
    "42", "-3", "1234", "0.25", "3/4", "\\frac{3}{4}", "2\\sqrt{3}", "x^2+1", "(1,2)", "[0, 1)", "x > 3", "50%",
    "12 km", "B", "yes", "red apple", "Zürich", "metre", "[10, 20, 110, 220]", '{"name": "Ada", "age": [36, 37]}',
    "<table><tr><td>a</td><td>1</td></tr><tr><td>b</td><td>2</td></tr></table>",
)  # fmt: skip
_OTHERS: tuple[tuple[str, Any], ...] = (
    ("cat", ["cat"] * 7 + ["dog"] * 3),
    ("three plain words", json.dumps([{"kind": "words", "max": 5}, {"kind": "keyword", "word": "plain", "min": 1}])),
)
_CHOICES = ("green pear", "red apple", "blue car", "white horse")
_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_WRONG = ("green pear", "no", "C", "seven hills")


@dataclass(frozen=True, slots=True)
class Reference:
    """An answer that a reward pays in full.

    Attributes:
        bare: the answer; `form` is what it has to stand in.
        value: what the reward gives for it.
        wrong: bare answers that it does not pay so.
    """

    bare: str
    gold: Any
    form: str = "{}"
    columns: Mapping[str, Any] = field(default_factory=dict)
    value: float = 1.0
    wrong: tuple[str, ...] = ()

    @property
    def right(self) -> str:
        return self.form.format(self.bare)


def default_pairs(wanted: frozenset[str]) -> list[tuple[str, Any, Mapping[str, Any]]]:
    """(answer, gold, columns) of many kinds, for a reward of which nothing is known but the names it asks for."""
    if "choices" in wanted:
        return [(letter, letter, {"choices": list(_CHOICES)}) for letter in "ABCD"]
    return [*((text, text, {}) for text in _TEXTS), *((answer, gold, {}) for answer, gold in _OTHERS)]


def pairs_of_cases(cases: Sequence[LabelledCase]) -> list[tuple[str, Any, Mapping[str, Any]]]:
    """(answer, gold, columns) of those cases whose answer is right, is a text and is no whole response."""
    found: list[tuple[str, Any, Mapping[str, Any]]] = []
    for case in cases:
        right = case.expected is True or case.expected == 1.0
        if right and isinstance(case.pred, str) and len(case.pred) <= 400 and not case.extracted:
            choices = {"choices": list(case.choices)} if case.choices else {}
            found.append((case.pred, case.gold, {**case.params, **choices}))
    return found


def references_for(
    subject: Subject,
    search: Sequence[str] = (),
    *,
    golds: Sequence[str] | None = None,
    cases: Sequence[LabelledCase] | None = None,
) -> list[Reference]:
    """References of a reward: the given ones, those of labelled cases, else those of many kinds that it accepts.

    Of cases those are taken whose metric stands for the reward in the catalog; all, if none does.

    Raises:
        UserError: references were given, and the reward pays none of them.
    """
    if subject.reward.wanted.isdisjoint({"gold"}):
        return []
    pairs: list[tuple[str, Any, Mapping[str, Any]]]
    if golds:
        pairs = [(gold, gold, {}) for gold in golds]
    elif cases is not None:
        known = catalog(search)
        own = [case for case in cases if known.get(case.metric) == subject.target]
        pairs = pairs_of_cases(own or cases)
    else:
        pairs = default_pairs(subject.reward.wanted)
    found = find_references(pairs, subject.ask)
    if not found and (golds or cases is not None):
        raise UserError(
            f"'{subject.target}' pays none of the {len(pairs)} given references in full; see `hybrid-rl rewards test`"
        )
    return found


def find_references(pairs: Sequence[tuple[str, Any, Mapping[str, Any]]], ask: Ask) -> list[Reference]:
    """Those pairs that are paid in full in some form, each with answers that are not.

    Full is 1, or 0 where the reward is a cost: where it is 0 for most of the pairs and larger for nonsense.
    """
    trials = [(form.format(bare), gold, columns) for bare, gold, columns in pairs for form in _FORMS]
    verdicts = iter(ask(trials))
    judged = [[next(verdicts).value for _ in _FORMS] for _ in pairs]
    nonsense = [verdict.value for verdict in ask([("qx zzv", gold, columns) for _, gold, columns in pairs])]
    costs = sum(values[0] == 0.0 and bool(poor) for values, poor in zip(judged, nonsense, strict=True))
    full = 0.0 if 2 * costs > len(pairs) else 1.0
    found = []
    for (bare, gold, columns), values, poor in zip(pairs, judged, nonsense, strict=True):
        if full in values and poor != full:
            form = _FORMS[values.index(full)]
            found.append(Reference(bare, gold, form, columns, full))
    return _with_wrong(found, ask)


def _with_wrong(references: Sequence[Reference], ask: Ask) -> list[Reference]:
    candidates = [_distractors(reference) for reference in references]
    trials = [
        (reference.form.format(text), reference.gold, reference.columns)
        for reference, texts in zip(references, candidates, strict=True)
        for text in texts
    ]
    verdicts = iter(ask(trials))
    found = []
    for reference, texts in zip(references, candidates, strict=True):
        values = [next(verdicts).value for _ in texts]
        wrong = tuple(text for text, value in zip(texts, values, strict=True) if value != reference.value)
        found.append(
            Reference(reference.bare, reference.gold, reference.form, reference.columns, reference.value, wrong)
        )
    return [reference for reference in found if reference.wrong]


def _distractors(reference: Reference) -> list[str]:
    bare = reference.bare
    if "choices" in reference.columns:
        return [letter for letter, _ in zip("ABCDEFGH", reference.columns["choices"], strict=False) if letter != bare]
    if bare in _OPPOSITE:
        return [_OPPOSITE[bare]]
    if re.search(r"\d", bare):
        steps = (-1, 1, 10, 100)
        return [re.sub(r"\d{1,15}", lambda number: str(int(number[0]) + step), bare, count=1) for step in steps]  # noqa: B023
    return [text for text in _WRONG if text != bare]
