"""`rewards fuzz`: random inputs by class, and what the reward made of them.

Three questions: does a right answer stay right when it is written otherwise, is nothing else paid as it is, and does
every input end in time and without an exception? Every input comes from a generator of its own, seeded by the seed, its
class and its number, so that a class can be run alone and gives the same inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any, Literal

from hybrid_rl.authoring.hacks import HACKS
from hybrid_rl.authoring.mutations import MUTATIONS
from hybrid_rl.authoring.noise import noise
from hybrid_rl.authoring.references import Reference
from hybrid_rl.authoring.subject import Subject
from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.pool import Verdict

Kind = Literal["mutation", "hack", "noise"]
_SHARES: Mapping[Kind, float] = {"noise": 0.4, "mutation": 0.3, "hack": 0.3}
_BATCH = 500
_TRIES = 40
"""Draws of one input before its class is taken for one that does not apply."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One input. `value`: what it must score, or, for a hack, what it must not; None: anything that ends."""

    answer: str
    gold: Any
    columns: Mapping[str, Any]
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An input on which the reward is wrong."""

    trial: Trial
    verdict: Verdict

    @property
    def said(self) -> str:
        verdict = self.verdict
        return f"scores {verdict.value:g}" if verdict.value is not None else f"{verdict.outcome.value}, {verdict.reason}"


@dataclass(frozen=True, slots=True)
class ClassResult:
    """What became of the inputs of a class.

    Attributes:
        known: the reward says of itself that it pays these.
        smallest: the failing input with the fewest characters.
    """

    name: str
    kind: Kind
    summary: str
    count: int
    failed: int
    errors: int
    timeouts: int
    max_ms: float
    known: bool = False
    smallest: Failure | None = None


@dataclass(frozen=True, slots=True)
class FuzzReport:
    """`unclaimed`: mutations whose plainest form already changes the verdict, so that they were not tried."""

    reward: str
    references: int
    classes: tuple[ClassResult, ...]
    unclaimed: tuple[str, ...]

    @property
    def failed(self) -> bool:
        return any(found.failed and not found.known or found.errors or found.timeouts for found in self.classes)


def fuzz(
    subject: Subject,
    *,
    number: int,
    seed: int,
    mutations: Sequence[str] | None = None,
    hacks: Sequence[str] | None = None,
) -> FuzzReport:
    """Try a reward on random inputs.

    Args:
        number: of inputs, over all classes.
        mutations: classes that must not change the verdict; None: those whose plainest form the reward accepts.
        hacks: classes that must not be paid; None: all.
    """
    claimed = _claimed(subject, seed) if mutations is None else list(mutations)
    tried = list(HACKS if hacks is None else hacks)
    if not subject.references:
        claimed, tried = [], []
    results = []
    for kind, names in (("mutation", claimed), ("hack", tried), ("noise", ["noise"])):
        share = _SHARES[kind] if subject.references else 1.0  # type: ignore[index]
        for place, name in enumerate(names):
            count = _part(round(number * share), len(names), place)
            results.append(_try_class(subject, kind, name, count, seed))  # type: ignore[arg-type]
    unclaimed = tuple(name for name in MUTATIONS if name not in claimed) if subject.references else ()
    return FuzzReport(subject.target, len(subject.references), tuple(results), unclaimed)


def _part(number: int, parts: int, place: int) -> int:
    return number // parts + (place < number % parts)


def _claimed(subject: Subject, seed: int) -> list[str]:
    """Mutations of which every reference accepts the plainest form; at least one has to have one."""
    plain = [
        (name, Trial(subject.written(reference, text), reference.gold, reference.columns, reference.value))
        for name, mutation in MUTATIONS.items()
        for reference in subject.references
        if (text := mutation.plainest(Random(f"{seed} {name}"), reference.right)) is not None
    ]
    verdicts = subject.ask([(trial.answer, trial.gold, trial.columns) for _, trial in plain])
    kept: dict[str, bool] = {}
    for (name, trial), verdict in zip(plain, verdicts, strict=True):
        kept[name] = kept.get(name, True) and verdict.value == trial.value
    return [name for name, holds in kept.items() if holds]


def _try_class(subject: Subject, kind: Kind, name: str, count: int, seed: int) -> ClassResult:
    trials = islice(_trials(subject, kind, name, seed), count)
    tried, longest_s, failures, known = 0, 0.0, [], kind == "hack" and name in subject.known_hacks
    while batch := list(islice(trials, _BATCH)):
        tried += len(batch)
        verdicts = subject.ask([(trial.answer, trial.gold, trial.columns) for trial in batch])
        longest_s = max([longest_s, *(v.seconds for v in verdicts)])
        failures += [Failure(t, v) for t, v in zip(batch, verdicts, strict=True) if _is_wrong(kind, t, v)]
    smallest = min(failures, key=lambda f: (len(f.trial.answer), f.trial.answer), default=None)
    if smallest is not None and kind == "noise":
        smallest = _shrunk(subject, smallest)
    summary = {"mutation": lambda: MUTATIONS[name].summary, "hack": lambda: HACKS[name][0]}.get(kind, lambda: "")()
    outcomes = [failure.verdict.outcome for failure in failures]
    return ClassResult(
        name, kind, summary, tried, len(failures), outcomes.count(Outcome.ERROR), outcomes.count(Outcome.TIMEOUT),
        round(1e3 * longest_s, 3), known, smallest,
    )  # fmt: skip


def _trials(subject: Subject, kind: Kind, name: str, seed: int) -> Iterator[Trial]:
    """Inputs of a class, without end; none where the class does not apply to any reference."""
    missed, number = 0, 0
    while missed < _TRIES:
        random = Random(f"{seed} {kind} {name} {number}")
        number += 1
        trial = _trial(subject, kind, name, random)
        missed = missed + 1 if trial is None else 0
        if trial is not None:
            yield trial


def _trial(subject: Subject, kind: Kind, name: str, random: Random) -> Trial | None:
    reference = random.choice(subject.references) if subject.references else Reference("12", None)
    if kind == "noise":
        answer = noise(random, reference.right)
        if random.random() < 0.2 and "gold" in subject.reward.wanted:
            return Trial(answer, noise(random, str(reference.gold)), reference.columns)
        return Trial(answer, reference.gold, {**reference.columns, **subject.random_columns(random)})
    if kind == "mutation":
        # A wrong answer has to stay wrong as a right one has to stay right.
        is_right = random.random() < 0.75
        bare = reference.bare if is_right else random.choice(reference.wrong)
        text = MUTATIONS[name].rewrite(random, reference.form.format(bare))
        value = reference.value if is_right else None
        return None if text is None else Trial(text, reference.gold, reference.columns, value if is_right else -1.0)
    text = HACKS[name][1](random, reference.bare, reference.wrong)
    if text is None:
        return None
    if name != "empty" and random.random() < 0.5:
        text = reference.form.format(text)
    return Trial(text, reference.gold, reference.columns, reference.value)


def _is_wrong(kind: Kind, trial: Trial, verdict: Verdict) -> bool:
    if verdict.outcome in (Outcome.ERROR, Outcome.TIMEOUT):
        return True
    if kind == "noise":
        return False
    if kind == "hack":
        return verdict.value == trial.value
    return verdict.value != trial.value
