"""From what each part of the reward says of a response to its score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.records import Outcome, Rollout, Score
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring.standardize import standardize

_GRAVITY = (Outcome.OK, Outcome.ABSTAIN, Outcome.TIMEOUT, Outcome.ERROR)


def sum_up(
    config: Mapping[str, RewardConfig], rollouts: Sequence[Rollout], found: Sequence[Mapping[str, Verdict]]
) -> list[Score]:
    """The score of each rollout.

    Args:
        config: rewards by part name.
        rollouts: those of a group are adjacent.
        found: for each of them, the verdict of each part that applies.
    """
    terms = _terms(config, rollouts, found)
    return [_sum(config, results, added) for results, added in zip(found, terms, strict=True)]


def _terms(
    config: Mapping[str, RewardConfig], rollouts: Sequence[Rollout], found: Sequence[Mapping[str, Verdict]]
) -> list[dict[str, float]]:
    """What each part adds to the reward of each response."""
    terms: list[dict[str, float]] = [{} for _ in rollouts]
    for name, part in config.items():
        applicable = [place for place, results in enumerate(found) if name in results]
        for _, members in groupby(applicable, key=lambda place: rollouts[place].request.group):
            group = list(members)
            values = [found[place][name].value for place in group]
            if part.standardize:
                values = list(standardize(values))
            for place, value in zip(group, values, strict=True):
                if value is not None:
                    terms[place][name] = part.weight * value
    return terms


def _sum(config: Mapping[str, RewardConfig], results: Mapping[str, Verdict], terms: Mapping[str, float]) -> Score:
    ordered = {name: results[name] for name in config if name in results}
    parts: dict[str, float] = {}
    for name, verdict in ordered.items():
        if verdict.value is not None:
            parts |= {name: verdict.value} | {f"{name}.{part}": value for part, value in verdict.parts.items()}
    outcomes = {name: verdict.outcome for name, verdict in ordered.items()}
    forgiven = {name for name, outcome in outcomes.items() if outcome is Outcome.ABSTAIN and config[name].standardize}
    # No part at all is an abstention too.
    counted = [outcome for name, outcome in outcomes.items() if name not in forgiven]
    gravest = max(counted, key=_GRAVITY.index, default=Outcome.ABSTAIN)
    return Score(
        value=math.fsum(terms.values()) if gravest is Outcome.OK else 0.0,
        parts=parts,
        outcome=gravest,
        outcomes=outcomes,
        errors={name: verdict.reason for name, verdict in ordered.items() if verdict.outcome is Outcome.ERROR},
        terms={name: terms[name] for name in ordered if name in terms},
        seconds={name: verdict.seconds for name, verdict in ordered.items()},
    )
