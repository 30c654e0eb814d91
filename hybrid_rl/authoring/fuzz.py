"""`rewards fuzz`: random inputs by class, and what the reward made of them.

Three questions: does a right answer stay right when it is written otherwise, is nothing else paid as it is, and does
every input end in time and without an exception? Every input comes from a generator of its own, seeded by the seed, its
class and its number, so that a class can be run alone and gives the same inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Any, Literal

from hybrid_rl.authoring.hacks import HACKS, IN_FORM, ON_TEXT
from hybrid_rl.authoring.mutations import MUTATIONS
from hybrid_rl.authoring.noise import noise
from hybrid_rl.authoring.references import Reference
from hybrid_rl.authoring.subject import Subject, Trial
from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.verdict import Verdict

Kind = Literal["mutation", "hack", "noise"]
_SHARES: Mapping[Kind, float] = {"noise": 0.4, "mutation": 0.3, "hack": 0.3}
_BATCH = 500
_SHRINK_CALLS = 60
_TRIES = 40
"""Draws of one input before its class is taken for one that does not apply."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input.

    Attributes:
        full: what the reward gives for a right answer.
        paid: whether it must be paid so; None: it only has to end.
    """

    answer: str
    gold: Any
    columns: Mapping[str, Any]
    full: float = 1.0
    paid: bool | None = None

    @property
    def trial(self) -> Trial:
        return self.answer, self.gold, self.columns

    def is_wrong(self, verdict: Verdict) -> bool:
        """Whether this is no verdict to give on it."""
        if verdict.outcome in (Outcome.ERROR, Outcome.TIMEOUT):
            return True
        return self.paid is not None and self.paid != (verdict.value == self.full)


@dataclass(frozen=True, slots=True)
class Failure:
    """An input on which the reward is wrong."""

    input: Input
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ClassResult:
    """What became of the inputs of a class.

    Attributes:
        references: how many the class was tried on.
        known: the reward says of itself that it pays these.
        smallest: the failing input with the fewest characters.
    """

    name: str
    kind: Kind
    references: int
    count: int
    failed: int
    errors: int
    timeouts: int
    max_ms: float
    known: bool = False
    smallest: Failure | None = None


@dataclass(frozen=True, slots=True)
class FuzzReport:
    """What became of all inputs.

    Attributes:
        references: the answers that were rewritten and abused.
        unclaimed: mutations whose plainest form already changes the verdict, so that they were not tried.
    """

    reward: str
    references: tuple[str, ...]
    classes: tuple[ClassResult, ...]
    unclaimed: tuple[str, ...]

    @property
    def failed(self) -> bool:
        return any((found.failed and not found.known) or found.errors or found.timeouts for found in self.classes)


def fuzz(
    subject: Subject,
    references: Sequence[Reference],
    *,
    number: int,
    seed: int,
    mutations: Sequence[str] | None = None,
    hacks: Sequence[str] | None = None,
) -> FuzzReport:
    """Try a reward on random inputs.

    Args:
        references: see `references_for`; without any there is nothing to be right or wrong about.
        number: of inputs, over all classes.
        mutations: classes that must not change any verdict; None: each class on the references whose plainest form the
            reward accepts.
        hacks: classes that must not be paid; None: all that can happen to the reward.
    """
    claimed = (
        _claimed(subject, references, seed) if mutations is None else {name: list(references) for name in mutations}
    )
    tried = [name for name in HACKS if _can_happen(name, subject)] if hacks is None else hacks
    by_kind: dict[Kind, Mapping[str, list[Reference]]] = {
        "mutation": claimed if references else {},
        "hack": {name: list(references) for name in tried} if references else {},
        "noise": {"noise": list(references)},
    }
    share = sum(_SHARES[kind] for kind, classes in by_kind.items() if classes)
    results = []
    for kind, classes in by_kind.items():
        for place, (name, chosen) in enumerate(classes.items()):
            count = _part(round(number * _SHARES[kind] / share), len(classes), place)
            results.append(_try_class(subject, _Maker(subject, chosen, kind, name, seed), kind, name, count))
    unclaimed = tuple(name for name in MUTATIONS if name not in claimed) if references else ()
    return FuzzReport(subject.target, tuple(dict.fromkeys(r.right for r in references)), tuple(results), unclaimed)


def _can_happen(hack: str, subject: Subject) -> bool:
    """A reward on the answer is never called on a thought without end."""
    return hack not in ON_TEXT or not subject.reward.needs_answer


def _part(number: int, parts: int, place: int) -> int:
    return number // parts + (place < number % parts)


def _claimed(subject: Subject, references: Sequence[Reference], seed: int) -> dict[str, list[Reference]]:
    """By mutation, the references of which the reward accepts the plainest form."""
    plain = [
        (name, reference, Input(text, reference.gold, reference.columns, reference.value, True))
        for name, mutation in MUTATIONS.items()
        for reference in references
        if (text := mutation.plainest(Random(f"{seed} {name}"), reference.right)) is not None
    ]
    verdicts = subject.ask([made.trial for _, _, made in plain])
    claimed: dict[str, list[Reference]] = {}
    for (name, reference, made), verdict in zip(plain, verdicts, strict=True):
        if not made.is_wrong(verdict):
            claimed.setdefault(name, []).append(reference)
    return claimed


class _Maker:
    """Makes the inputs of a class."""

    def __init__(self, subject: Subject, references: Sequence[Reference], kind: Kind, name: str, seed: int) -> None:
        self._subject, self.references = subject, list(references)
        self._kind, self._name, self._seed = kind, name, seed

    def inputs(self) -> Iterator[Input]:
        """Without end; none where the class applies to no reference."""
        missed = number = 0
        while missed < _TRIES:
            made = self._one(Random(f"{self._seed} {self._kind} {self._name} {number}"))
            number += 1
            missed = missed + 1 if made is None else 0
            if made is not None:
                yield made

    def _one(self, random: Random) -> Input | None:
        reference = random.choice(self.references) if self.references else Reference("12", "12")
        if self._kind == "noise":
            return self._noise(random, reference)
        if self._kind == "mutation":
            # A wrong answer has to stay wrong as a right one has to stay right.
            # Where a reference is looked for inside the answer, something written around it changes the answer.
            paid = random.random() < 0.75 or bool(self._subject.known_hacks)
            bare = reference.bare if paid else random.choice(reference.wrong)
            text = MUTATIONS[self._name].rewrite(random, reference.form.format(bare))
        else:
            paid = False
            text = HACKS[self._name](random, reference.bare, reference.wrong)
            if text is not None and self._name in IN_FORM and random.random() < 0.5:
                text = reference.form.format(text)
        return None if text is None else Input(text, reference.gold, reference.columns, reference.value, paid)

    def _noise(self, random: Random, reference: Reference) -> Input:
        columns = {**reference.columns, **self._subject.random_columns(random)}
        answer, gold = noise(random, reference.right), reference.gold
        if random.random() < 0.2:
            gold = noise(random, str(gold))
        return Input(answer, gold, columns)


def _try_class(subject: Subject, maker: _Maker, kind: Kind, name: str, count: int) -> ClassResult:
    inputs = islice(maker.inputs(), count)
    tried, longest_s = 0, 0.0
    failures: list[Failure] = []
    while batch := list(islice(inputs, _BATCH)):
        tried += len(batch)
        verdicts = subject.ask([made.trial for made in batch])
        verdicts = _again(subject, batch, verdicts)
        longest_s = max([longest_s, *(verdict.seconds for verdict in verdicts)])
        failures += [Failure(m, v) for m, v in zip(batch, verdicts, strict=True) if m.is_wrong(v)]
    outcomes = [failure.verdict.outcome for failure in failures]
    smallest = min(failures, key=lambda f: (len(f.input.answer), f.input.answer), default=None)
    return ClassResult(
        name=name,
        kind=kind,
        references=len(maker.references),
        count=tried,
        failed=len(failures),
        errors=outcomes.count(Outcome.ERROR),
        timeouts=outcomes.count(Outcome.TIMEOUT),
        max_ms=round(1e3 * longest_s, 3),
        known=kind == "hack" and name in subject.known_hacks,
        smallest=_shrunk(subject, smallest) if smallest and kind == "noise" else smallest,
    )


def _again(subject: Subject, batch: Sequence[Input], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Ask once more where the time ran out: on a busy machine that may have been someone else's doing."""
    found = list(verdicts)
    late = [place for place, verdict in enumerate(verdicts) if verdict.outcome is Outcome.TIMEOUT]
    for place, verdict in zip(late, subject.ask([batch[place].trial for place in late]), strict=True):
        found[place] = verdict
    return found


def _shrunk(subject: Subject, failure: Failure) -> Failure:
    """A smaller input with the same outcome: pieces are taken out as long as it still fails."""
    smallest, asked = failure, 0
    size = max(1, len(failure.input.answer) // 2)
    while size and asked < _SHRINK_CALLS:
        text = smallest.input.answer
        pieces = [text[:at] + text[at + size :] for at in range(0, len(text), size)][: _SHRINK_CALLS - asked]
        asked += len(pieces)
        for piece in pieces:
            made = replace(smallest.input, answer=piece)
            verdict = subject.ask([made.trial])[0]
            if verdict.outcome is smallest.verdict.outcome:
                smallest = Failure(made, verdict)
                break
        else:
            size //= 2
    return smallest
