"""What each part of the reward did in a step: its values, what they decided, what they cost."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.insight.names import PART_OUTCOMES
from hybrid_rl.records import Sample


def part_metrics(groups: Sequence[Group], mode: str) -> dict[str, float]:
    """Figures of every part in the groups of a mode, over all and by source, where there are several."""
    found = _figures(groups, mode, "")
    sources = dict.fromkeys(_source(group) for group in groups)
    for source in sources if len(sources) > 1 else ():
        found |= _figures([group for group in groups if _source(group) == source], mode, f"source/{source}/")
    return found


def advantage_shares(groups: Sequence[Group]) -> dict[str, float]:
    """Each part's share of |advantage|, over the groups that have one.

    An advantage is a sum over parts: (term - mean of the term) / std of the whole. A part's share is the mean size of
    its summand against those of all; parts that pull against each other count in full.
    """
    sizes: dict[str, float] = defaultdict(float)
    for group in groups:
        if group.advantage.signal != "ok" or group.advantage.std == 0:  # parts may differ where their sums do not
            continue
        terms = [sample.score.terms for sample in group.samples if sample.trained]
        for part in dict.fromkeys(name for row in terms for name in row):
            values = [row.get(part, 0.0) for row in terms]  # a standardised part that abstains adds nothing
            mean = math.fsum(values) / len(values)
            sizes[part] += math.fsum(abs(value - mean) for value in values) / group.advantage.std
    total = math.fsum(sizes.values())
    return {part: size / total for part, size in sizes.items()} if total > 0 else {}


def _figures(groups: Sequence[Group], mode: str, prefix: str) -> dict[str, float]:
    samples = [sample for group in groups for sample in group.samples]
    shares = advantage_shares(groups)
    found: dict[str, float] = {}
    for part, values in _values(samples).items():
        found[f"{prefix}part/{part}/{mode}"] = math.fsum(values) / len(values)
        found[f"{prefix}part_std/{part}/{mode}"] = statistics.stdev(values) if len(values) > 1 else 0.0
    for part in dict.fromkeys(name for sample in samples for name in sample.score.outcomes):
        outcomes = [sample.score.outcomes[part] for sample in samples if part in sample.score.outcomes]
        for outcome in PART_OUTCOMES:
            found[f"{prefix}outcome/{part}/{outcome.value}/{mode}"] = outcomes.count(outcome)
        seconds = [sample.score.seconds[part] for sample in samples if part in sample.score.seconds]
        if seconds:
            found[f"{prefix}part_ms/{part}/{mode}"] = 1e3 * math.fsum(seconds) / len(seconds)
            found[f"{prefix}part_ms_max/{part}/{mode}"] = 1e3 * max(seconds)
        if shares:
            found[f"{prefix}part_share/{part}/{mode}"] = shares.get(part, 0.0)
    return found


def _values(samples: Sequence[Sample]) -> Mapping[str, list[float]]:
    values: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        for part, value in sample.score.parts.items():
            values[part].append(value)
    return values


def _source(group: Group) -> str:
    return group.samples[0].rollout.request.prompt.source
