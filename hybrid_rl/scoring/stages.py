"""When a reward can be called: with the response, with its group, or with the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hybrid_rl.scorer_pool.loading import POLICY, LoadedReward
from hybrid_rl.scoring.runners import Placed

Stage = Literal["sample", "group", "batch"]
STAGES: frozenset[Stage] = frozenset(("sample", "group", "batch"))


def stage_of(reward: LoadedReward) -> Stage:
    """What has to be there before the reward can be called.

    One that asks for the policy waits for the batch whatever it scores: the workers that it asks are busy until then,
    and the last bits of what they answer may depend on what is asked together.
    """
    return "batch" if POLICY in reward.wanted else reward.per


def stages_of(placed: Mapping[str, Placed]) -> frozenset[Stage]:
    """The stages that have a reward."""
    return frozenset(stage_of(reward.reward) for reward in placed.values())
