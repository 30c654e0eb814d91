"""What a reward may ask for by parameter name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybrid_rl.images import open_image
from hybrid_rl.protocols import PolicyHandle
from hybrid_rl.records import Rollout
from hybrid_rl.scorer_pool.loading import POLICY, LoadedReward

OFFERED = (
    "answer",
    "thought",
    "text",
    "ids",
    "mode",
    "finish",
    "well_formed",
    "leaked",
    "wants_thought",
    "gold",
    "task",
    "prompt",
    "group",
    "index",
    "images",
    POLICY,
)
"""Beside the columns of the data row."""


def arguments_for(
    reward: LoadedReward,
    rollouts: Sequence[Rollout],
    wants_thought: Mapping[str, bool],
    policy: PolicyHandle | None,
) -> dict[str, Any]:
    """The arguments of one call; lists unless the reward scores one sample at a time."""
    each = [reward.chosen(_offered(reward, rollout, wants_thought)) for rollout in rollouts]
    # A column that only some rows have cannot be missing from a list.
    names = dict.fromkeys(name for values in each for name in values)
    arguments = each[0] if reward.per == "sample" else {n: [values.get(n) for values in each] for n in names}
    return arguments | {POLICY: policy} if POLICY in reward.wanted else arguments


def _offered(reward: LoadedReward, rollout: Rollout, wants_thought: Mapping[str, bool]) -> dict[str, Any]:
    request, response = rollout.request, rollout.response
    offered = {
        **request.prompt.columns,
        "answer": response.answer,
        "thought": response.thought,
        "text": response.text,
        "ids": rollout.generation.ids,
        "mode": request.mode,
        "finish": rollout.generation.finish.value,
        "well_formed": rollout.well_formed,
        "leaked": response.leaked,
        "wants_thought": wants_thought[request.mode],
        "gold": request.prompt.gold,
        "task": request.prompt.task,
        "prompt": request.prompt,
        "group": request.group,
        "index": request.index,
    }
    if "images" in reward.wanted:  # not for one that takes everything: opening costs
        offered["images"] = tuple(open_image(image) for image in request.prompt.images)
    return offered
