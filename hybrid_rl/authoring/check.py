"""Rewards measured on labelled cases: how often the verdict is right, and how long it takes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybrid_rl.authoring.cases import LabelledCase
from hybrid_rl.errors import DataError, PluginError
from hybrid_rl.plugins import load
from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.loading import RewardSpec
from hybrid_rl.scorer_pool.pool import Case, ScorerPool
from hybrid_rl.scorer_pool.verdict import Verdict

CATALOG = "rewards.catalog:CATALOG"
"""Metric name -> target of the reward that computes it; `METRIC:response` for whole responses where that differs."""
_CASE_REWARD = "hybrid_rl.authoring.case_reward:CaseReward"


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """A case with its verdict."""

    case: LabelledCase
    verdict: Verdict

    @property
    def credit(self) -> float:
        """What the prediction gets; nothing where there is no verdict."""
        return self.verdict.value if self.verdict.value is not None else 0.0

    @property
    def error(self) -> float:
        """By how much the credit is wrong: positive where too much was given, 0 where it is right."""
        case = self.case
        if isinstance(case.expected, bool):
            given = self.verdict.value is not None and self.verdict.value >= case.threshold
            return float(given) - float(case.expected)
        difference = self.credit - case.expected
        return 0.0 if abs(difference) <= case.tolerance else difference


def check_cases(
    cases: Sequence[LabelledCase],
    reward: str | None,
    search: Sequence[str],
    *,
    timeout_s: float,
    processes: int,
) -> list[CheckedCase]:
    """Score cases in killable processes.

    Args:
        reward: target for all cases; None: each case's metric picks it from the catalog.

    Raises:
        DataError: a metric is not in the catalog.
        PluginError: a reward does not load, or the given one fails on every case.
    """
    targets = {_name(case): reward or _in_catalog(case, search) for case in cases}
    specs = {
        _name(case): RewardSpec(
            case.metric,
            _CASE_REWARD,
            {"target": targets[_name(case)], "search": list(search), "extracted": case.extracted},
        )
        for case in cases
    }
    pool = ScorerPool(specs, size=processes)
    calls = [
        Case(
            _name(case),
            {"pred": case.pred, "gold": case.gold, "choices": case.choices, "params": dict(case.params)},
            timeout_s,
        )
        for case in cases
    ]
    try:
        verdicts = pool.run(calls)
    finally:
        pool.close()
    if reward is not None and all(verdict.outcome is Outcome.ERROR for verdict in verdicts):
        where = cases[0].where or f"case {cases[0].id}"
        raise PluginError(f"'{reward}' failed on every case; on {where} it {verdicts[0].reason}")
    return [CheckedCase(case, verdict) for case, verdict in zip(cases, verdicts, strict=True)]


def report(checked: Sequence[CheckedCase]) -> dict[str, Any]:
    """`cases` one by one, and figures `by_metric` and of `all`."""
    metrics = dict.fromkeys(item.case.label for item in checked)
    return {
        "cases": [
            {
                "id": item.case.id,
                "metric": item.case.label,
                "kind": item.case.kind,
                "score": item.verdict.value,
                "outcome": item.verdict.outcome.value,
                "ms": round(1e3 * item.verdict.seconds, 3),
            }
            for item in checked
        ],
        "by_metric": {metric: _figures([c for c in checked if c.case.label == metric]) for metric in metrics},
        "all": _figures(checked),
    }


def _figures(checked: Sequence[CheckedCase]) -> dict[str, float]:
    errors = [item.error for item in checked]
    ms = [1e3 * item.verdict.seconds for item in checked]
    return {
        "n": len(checked),
        "accuracy": sum(error == 0 for error in errors) / len(checked),
        "false_positives": sum(error > 0 for error in errors),
        "false_negatives": sum(error < 0 for error in errors),
        "abstained": sum(item.verdict.outcome is not Outcome.OK for item in checked),
        "p50_ms": round(float(np.percentile(ms, 50)), 3),
        "p99_ms": round(float(np.percentile(ms, 99)), 3),
        "max_ms": round(max(ms), 3),
    }


def catalog(search: Sequence[str]) -> Mapping[str, str]:
    """Targets of the built-in rewards by metric name.

    Raises:
        PluginError: it does not load, or is no mapping.
    """
    found = load(CATALOG, search)
    if not isinstance(found, Mapping):
        raise PluginError(f"'{CATALOG}' is not a mapping of metric names to rewards")
    return {str(name): str(target) for name, target in found.items()}


def _in_catalog(case: LabelledCase, search: Sequence[str]) -> str:
    known = catalog(search)
    if case.metric not in known:
        near = difflib.get_close_matches(case.metric, list(known), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(known))}."
        where = case.where or f"case {case.id}"
        raise DataError(f"{where}: there is no metric '{case.metric}'; {hint} Or name a reward with --reward")
    of_responses = known.get(f"{case.metric}:response") if case.extracted else None
    return of_responses or known[case.metric]


def _name(case: LabelledCase) -> str:
    return f"{case.metric} in {'responses' if case.extracted else 'answers'}"
