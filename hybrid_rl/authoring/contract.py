"""`rewards test`: does a reward keep the contract, pay the reference in full, and withstand what a model may write?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_rl.authoring.subject import Subject, says
from hybrid_rl.errors import PluginError
from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.verdict import Verdict

_SPEED_CALLS = 50
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        kept: None where the check does not apply.
    """

    topic: str
    kept: bool | None
    detail: str


def hostile_texts(marker: Path) -> list[str]:
    """What a model may write by accident or on purpose: none may hang, fail, run code or earn full marks."""
    call = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    return [
        "", " ", "\n\t", "\x00", "\ud800", "\u202e21", "a" * 1_000_000, "1 " * 200_000, "9" * 5_000,
        "(" * 100_000, "\\boxed{" * 50_000, "{" * 20_000, "[" * 20_000, "<think>" * 20_000, "<table>" * 20_000,
        "9^9^9^9^9", "9**9**9**9", "(x+1)^{99999}", "99999999!", "1e999999999", "1/0", "nan", "inf", "-0",
        "\\frac{1}{" * 2_000, "\\sqrt{" * 3_000, "0" + "+1" * 50_000, "-" * 20_000 + "1",
        call, f"\\boxed{{{call}}}", f"[{call}, 2]", f"{{{{{call}}}}}", f"sqrt({call})", f"!!python/object/apply:{call}",
        "None", "null", "true", '{"a":' * 5_000, "%s%n%d{0}{x}", "'; DROP TABLE x; --", "../../etc/passwd",
        "the answer is " * 20_000, "A B C D", "٣٤", "½", "１２", "ﷺ" * 10_000, "e\u0301" * 10_000,
    ]  # fmt: skip


def try_reward(
    target: str,
    search: Sequence[str],
    *,
    args: Mapping[str, Any],
    golds: Sequence[str],
    columns: Mapping[str, Any],
    timeout_s: float,
) -> list[Finding]:
    """Look at a reward from all sides; everything runs in killable processes.

    Args:
        golds: references that the reward can read.
        columns: further columns of the data that it asks for.
    """
    try:
        first = Subject(target, search, args=args, columns=columns, timeout_s=timeout_s)
        second = Subject(target, search, args=args, columns=columns, timeout_s=timeout_s, processes=1)
    except PluginError as error:
        return [Finding("contract", False, str(error))]
    try:
        if first.missing:
            name = first.missing[0]
            return [Finding("contract", False, f"asks for '{name}'; give it with --column {name}=VALUE")]
        reward = first.reward
        called = f"called with {', '.join(sorted(reward.wanted)) or 'nothing'}, per {reward.per}, in {reward.runs_in}"
        return [
            Finding("contract", True, called),
            *_gold(first, golds, timeout_s),
            *_hostile(first, second, golds),
        ]
    finally:
        first.close()
        second.close()


def _gold(subject: Subject, golds: Sequence[str], timeout_s: float) -> list[Finding]:
    if "gold" not in subject.reward.wanted:
        return [Finding("gold", None, "does not look at the reference")]
    verdicts = subject.ask([(gold, gold, {}) for gold in golds])
    short = [f"{_short(g)}: {says(v)}" for g, v in zip(golds, verdicts, strict=True) if v.value != 1.0]
    timed = subject.ask([(golds[0], golds[0], {})] * _SPEED_CALLS)
    median_ms = 1e3 * statistics.median(verdict.seconds for verdict in timed)
    return [
        Finding("gold", not short, "; ".join(short) or f"full marks for {len(golds)} references as answers"),
        Finding("speed", median_ms < 1e3 * timeout_s / 10, f"median {median_ms:.3g} ms for the reference"),
    ]


def _hostile(first: Subject, second: Subject, golds: Sequence[str]) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder, "executed")
        texts = [text for text in hostile_texts(marker) if text.strip() != golds[0].strip()]
        verdicts = first.ask([(text, golds[0], {}) for text in texts])
        again = second.ask([*((text, golds[0], {}) for text in texts), *((gold, gold, {}) for gold in golds)])
        executed = marker.exists()
    looks_at_gold = "gold" in first.reward.wanted
    failed = [(text, v) for text, v in zip(texts, verdicts, strict=True) if v.outcome in _FAILURES]
    paid = [(text, v) for text, v in zip(texts, verdicts, strict=True) if looks_at_gold and v.value == 1.0]
    # A limit of time is the machine's affair; what has a value must have the same one everywhere.
    unsteady = [
        (text, b)
        for text, a, b in zip(texts, verdicts, again, strict=False)
        if Outcome.TIMEOUT not in (a.outcome, b.outcome) and (a.outcome, a.value) != (b.outcome, b.value)
    ]
    slowest_ms = 1e3 * max(verdict.seconds for verdict in verdicts)
    return [
        Finding("determinism", not unsteady, _listed(unsteady) or "the same in two processes"),
        Finding("hostile", not failed, _listed(failed) or f"{len(texts)} texts, the slowest {slowest_ms:.3g} ms"),
        Finding("hacks", not paid, _listed(paid) or "no hostile text earns full marks"),
        Finding("code", not executed, "ran code that a model wrote" if executed else "no injected code was run"),
    ]


_FAILURES = (Outcome.ERROR, Outcome.TIMEOUT)


def _listed(items: Sequence[tuple[str, Verdict]]) -> str:
    shown = "; ".join(f"{_short(text)}: {says(verdict)}" for text, verdict in items[:3])
    return shown + (f"; and {len(items) - 3} more" if len(items) > 3 else "")


def _short(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"
