"""`rewards test`: does a reward keep the contract, pay the reference in full, and withstand what a model may write?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_rl.errors import PluginError
from hybrid_rl.records import Message, Outcome, Prompt
from hybrid_rl.scorer_pool.loading import LoadedReward, RewardSpec, load_reward
from hybrid_rl.scorer_pool.pool import Case, ScorerPool
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
    spec = RewardSpec(target.rpartition(":")[2] or target, target, args, tuple(search))
    try:
        reward = load_reward(spec)
    except PluginError as error:
        return [Finding("contract", False, str(error))]
    missing = sorted(reward.required - _offered("", "", columns).keys())
    if missing:
        return [Finding("contract", False, f"asks for '{missing[0]}'; give it with --column {missing[0]}=VALUE")]
    first = ScorerPool({"reward": spec})
    second = ScorerPool({"reward": spec}, size=1)
    try:
        return [
            Finding("contract", True, f"called with {', '.join(sorted(reward.wanted)) or 'nothing'}"),
            *_gold(first, reward, golds, columns, timeout_s),
            *_hostile(first, second, reward, golds, columns, timeout_s),
        ]
    finally:
        first.close()
        second.close()


def _gold(
    pool: ScorerPool, reward: LoadedReward, golds: Sequence[str], columns: Mapping[str, Any], timeout_s: float
) -> list[Finding]:
    if "gold" not in reward.wanted:
        return [Finding("gold", None, "does not look at the reference")]
    verdicts = _run(pool, reward, [(gold, gold) for gold in golds], columns, timeout_s)
    short = [f"{_short(g)}: {_said(v)}" for g, v in zip(golds, verdicts, strict=True) if v.value != 1.0]
    timed = _run(pool, reward, [(golds[0], golds[0])] * _SPEED_CALLS, columns, timeout_s)
    median_ms = 1e3 * statistics.median(verdict.seconds for verdict in timed)
    return [
        Finding("gold", not short, "; ".join(short) or f"full marks for {len(golds)} references as answers"),
        Finding("speed", median_ms < 1e3 * timeout_s / 10, f"median {median_ms:.3g} ms for the reference"),
    ]


def _hostile(
    first: ScorerPool,
    second: ScorerPool,
    reward: LoadedReward,
    golds: Sequence[str],
    columns: Mapping[str, Any],
    timeout_s: float,
) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder, "executed")
        texts = hostile_texts(marker)
        pairs = [(text, golds[0]) for text in texts if text.strip() != golds[0].strip()]
        verdicts = _run(first, reward, pairs, columns, timeout_s)
        again = _run(second, reward, [*pairs, *((gold, gold) for gold in golds)], columns, timeout_s)
        executed = marker.exists()
    failed = [(text, v) for (text, _), v in zip(pairs, verdicts, strict=True) if v.outcome in _FAILURES]
    paid = [(t, v) for (t, _), v in zip(pairs, verdicts, strict=True) if "gold" in reward.wanted and v.value == 1.0]
    # A limit of time is the machine's affair; what has a value must have the same one everywhere.
    unsteady = [
        (text, b)
        for (text, _), a, b in zip(pairs, verdicts, again, strict=False)
        if Outcome.TIMEOUT not in (a.outcome, b.outcome) and (a.outcome, a.value) != (b.outcome, b.value)
    ]
    slowest_ms = 1e3 * max(verdict.seconds for verdict in verdicts)
    return [
        Finding("determinism", not unsteady, _listed(unsteady) or "the same in two processes"),
        Finding("hostile", not failed, _listed(failed) or f"{len(pairs)} texts, the slowest {slowest_ms:.3g} ms"),
        Finding("hacks", not paid, _listed(paid) or "no hostile text earns full marks"),
        Finding("code", not executed, "ran code that a model wrote" if executed else "no injected code was run"),
    ]


_FAILURES = (Outcome.ERROR, Outcome.TIMEOUT)


def _run(
    pool: ScorerPool,
    reward: LoadedReward,
    pairs: Sequence[tuple[str, str]],
    columns: Mapping[str, Any],
    timeout_s: float,
) -> list[Verdict]:
    """Verdicts on (answer, gold) pairs."""
    offered = [reward.chosen(_offered(answer, gold, columns)) for answer, gold in pairs]
    return pool.run([Case("reward", arguments, timeout_s) for arguments in offered])


def _offered(answer: str, gold: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """What training offers, for a response that is its answer."""
    prompt = Prompt(id="test", source="test", task="test", messages=(Message(role="user", text="?"),), gold=gold)
    return {
        "answer": answer,
        "thought": "",
        "text": answer,
        "ids": tuple(range(min(len(answer), 1000))),
        "mode": "test",
        "finish": "stop",
        "well_formed": True,
        "leaked": False,
        "wants_thought": False,
        "gold": gold,
        "task": "test",
        "prompt": prompt,
        **columns,
    }


def _listed(items: Sequence[tuple[str, Verdict]]) -> str:
    shown = "; ".join(f"{_short(text)}: {_said(verdict)}" for text, verdict in items[:3])
    return shown + (f"; and {len(items) - 3} more" if len(items) > 3 else "")


def _said(verdict: Verdict) -> str:
    return f"{verdict.value:g}" if verdict.value is not None else f"{verdict.outcome.value}, {verdict.reason}"


def _short(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"
