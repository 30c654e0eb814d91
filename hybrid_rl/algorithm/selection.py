"""Scored rollouts -> the groups of a step, kept or dropped, with the advantages that they have then."""

from __future__ import annotations

from collections.abc import Sequence

from hybrid_rl.algorithm.admission import AdmissionState, admit
from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.grouping import Grouping
from hybrid_rl.config.admission import AdmissionConfig
from hybrid_rl.records import Rollout, Score


def select(
    rollouts: Sequence[Rollout],
    scores: Sequence[Score],
    grouping: Grouping,
    config: AdmissionConfig,
    state: AdmissionState,
    step: int,
) -> tuple[list[Group], AdmissionState]:
    """Group, and decide on each group.

    GDPO normalises over the step. What is dropped is no part of it, so advantages are computed once more without; which
    groups are dropped does not depend on that.

    Args:
        state: of admission before the step.

    Returns:
        The groups in the order of the rollouts, and the state after the step.
    """

    def decide(left_out: frozenset[str]) -> tuple[list[Group], AdmissionState]:
        scored = grouping.groups(rollouts, scores, step, left_out=left_out)
        return admit(scored, state, config, step, whole_draws=grouping.whole_draws)

    groups, after = decide(frozenset())
    dropped = frozenset(group.name for group in groups if group.dropped)
    if dropped and grouping.part_weights is not None:
        groups, _ = decide(dropped)
    return groups, after
