"""Every built-in by its name: it loads, it survives hostile text in time, and it agrees with the labelled cases."""

from __future__ import annotations

import importlib
import inspect
import json
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybrid_rl.plugins import load
from hybrid_rl.records import Message, Prompt
from rewards.catalog import CATALOG

REPOSITORY = Path(__file__).resolve().parent.parent
CASES = REPOSITORY.parent / "shared" / "reward_cases"
OURS = sorted(name for name in CATALOG if not name.startswith("math"))
PROMPT = Prompt(id="p", source="", task="", messages=(Message(role="user", text="What is in this picture?"),), gold="")

HOSTILE = [
    "",
    "\x00 \ud800",
    "(" * 5000,
    "[" * 50_000,
    '{"a":' * 3000,
    "answer: " * 20_000,
    r"\boxed{" * 20_000,
    "<think>" * 20_000,
    "<table>" + "<tr><td>x" * 5000,
    "<![CDATA[" * 2000,
    "9^9^9^9^9^9",
    "1" * 100_000,
    "A " * 50_000,
    '"' * 50_000,
    "nan",
    "[1e400, nan, 1, 1]",
    "__import__('os').system('false')",
    "²½٣Ⅳ",
    "a b c " * 100_000,
]


def arguments(reward: Callable[..., Any], **given: Any) -> dict[str, Any]:
    everything = {
        "ids": (1, 2), "length": 3, "max_completion_len": 10, "soft_punish_cache": 5, "max_len": 10, "correct": True,
        "thought": given.get("text"), "well_formed": True, "wants_thought": True, "prompt": PROMPT, **given,
    }  # fmt: skip
    return {name: everything[name] for name in inspect.signature(reward).parameters if name in everything}


def warm(name: str) -> Callable[..., Any]:
    reward: Callable[..., Any] = load(CATALOG[name])
    prepare = getattr(importlib.import_module(CATALOG[name].partition(":")[0]), "warm_up", None)
    if prepare is not None:
        prepare()
    return reward


def test_short_names_lead_to_the_same_places() -> None:
    short = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"]["hybrid_rl.rewards"]
    for target in short.values():
        assert callable(load(target)), target
    assert {target for name, target in CATALOG.items() if name in OURS} <= {*short.values()} | {
        "rewards.length_shaping:soft_overlong",
        "rewards.length_shaping:cosine_scaled",
    }


@pytest.mark.parametrize("name", OURS)
def test_hostile_text_gets_a_verdict_in_time(name: str) -> None:
    """Processor time, since the machine may be busy."""
    reward = warm(name)
    for text in HOSTILE:
        for gold in ("B", "12", "[1, 2, 3, 4]", '[{"kind": "words", "min": 1}]', text):
            start = time.process_time()
            value = reward(**arguments(reward, answer=text, text=text, gold=gold))
            assert value is None or (isinstance(value, float) and value == value)
            assert time.process_time() - start < 2, (text[:20], gold[:20])


def verdicts(name: str) -> list[tuple[str, str, float, float | None, float]]:
    rows = []
    for line in (CASES / name).read_text().splitlines():
        case = json.loads(line)
        metric, _, threshold = case["metric"].partition(">=")
        if metric.startswith("math"):
            continue
        assert metric in CATALOG, metric
        reward = warm(metric)
        extra = {**case.get("params", {}), **({"choices": case["choices"]} if "choices" in case else {})}
        value = reward(
            **arguments(reward, **{"answer": case["pred"], "text": case["pred"], "gold": case["gold"], **extra})
        )
        if threshold and value is not None:
            value = float(value >= float(threshold))
        rows.append((case["metric"], case["id"], float(case["expected"]), value, case.get("tol", 1e-3)))
    return rows


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared folder with the labelled cases is not here")
def test_the_labelled_cases() -> None:
    """All metrics but math: 99 % pooled, none below 95 % of 20 cases or more, at most 0.5 % false positives."""
    right: dict[str, list[bool]] = defaultdict(list)
    too_high = 0
    for file in ("reward_cases_dev.jsonl", "reward_cases_adversarial_dev.jsonl"):
        for metric, _, expected, value, slack in verdicts(file):
            score = 0.0 if value is None else value
            right[metric].append(abs(score - expected) <= slack)
            too_high += score > expected + slack
    total = [verdict for part in right.values() for verdict in part]
    assert sum(total) >= 0.99 * len(total)
    assert too_high <= 0.005 * len(total)
    for metric, part in right.items():
        assert len(part) < 20 or sum(part) >= 0.95 * len(part), metric
