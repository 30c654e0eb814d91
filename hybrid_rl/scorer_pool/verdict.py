"""What became of a call of a reward, wherever it ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hybrid_rl.records import Outcome, Score


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of scoring a response.

    Attributes:
        value: set where the outcome is OK.
        reason: a sentence, where it is not.
        seconds: of the call itself, shared out over its responses.
        parts: what the reward says its value is made of.
        cause: what was raised, where it was raised in this process.
    """

    outcome: Outcome
    value: float | None = None
    reason: str = ""
    seconds: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    cause: Exception | None = None


def verdicts(scores: Sequence[Score | None], seconds: float) -> list[Verdict]:
    """The verdicts on the responses of a call that returned."""
    each_s = seconds / max(1, len(scores))
    return [
        Verdict(Outcome.ABSTAIN, reason="it abstained", seconds=each_s)
        if score is None
        else Verdict(Outcome.OK, score.value, seconds=each_s, parts=score.parts)
        for score in scores
    ]


def shared(verdict: Verdict, count: int | None) -> list[Verdict]:
    """The verdicts on the responses of a call that did not return: they share its fate."""
    number = 1 if count is None else count
    return [replace(verdict, seconds=verdict.seconds / max(1, number))] * number
