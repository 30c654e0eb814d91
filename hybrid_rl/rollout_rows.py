"""A rollout as an object of a JSON Lines file, and back: its request is dealt again, not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybrid_rl.protocols import ChatFormat
from hybrid_rl.records import Finish, Generation, Request, Rollout


def rollout_row(rollout: Rollout) -> dict[str, Any]:
    """What of a rollout is not in its request; JSON keeps a float to the last bit."""
    request, generation = rollout.request, rollout.generation
    return {
        "group": request.group,
        "index": request.index,
        "gold": request.prompt.gold,
        "ids": list(generation.ids),
        "logprobs": list(generation.logprobs),
        "sampled": list(generation.sampled),
        "finish": generation.finish.value,
        "policy_versions": list(rollout.versions),
    }


def belongs_to(row: Mapping[str, Any], request: Request) -> bool:
    """Whether the row is of a response to this request."""
    recorded = (row.get("group"), row.get("index"), row.get("gold"))
    return recorded == (request.group, request.index, request.prompt.gold)


def rollout_of(row: Mapping[str, Any], request: Request, chat: ChatFormat) -> Rollout:
    """The rollout that the row was made of; the row may hold more."""
    generation = Generation(
        ids=tuple(row["ids"]),
        logprobs=tuple(row["logprobs"]),
        sampled=tuple(row["sampled"]),
        finish=Finish(row["finish"]),
    )
    oldest, newest = row["policy_versions"]
    return Rollout(
        request=request,
        generation=generation,
        response=chat.parse(generation.ids, request.mode),
        versions=(oldest, newest),
    )
