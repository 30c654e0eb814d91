"""How well a model that chooses its mode chooses: Hybrid Accuracy (arXiv 2505.14631, section 4.1).

For a prompt that was answered in assigned modes too, the better one is that with the larger mean accuracy, and of
equal ones that with fewer tokens. Hybrid Accuracy is the share of responses, in a mode that leaves the choice to the
model, that are in the better mode; a mean over prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from hybrid_rl.protocols import Thought
from hybrid_rl.records import Rollout


@dataclass(frozen=True, slots=True)
class Answered:
    """A response and how right it is.

    Attributes:
        prompt: what tells prompts apart.
        accuracy: in [0, 1].
    """

    prompt: Hashable
    rollout: Rollout
    accuracy: float


def hybrid_accuracy(answers: Sequence[Answered], thoughts: Mapping[str, Thought]) -> dict[str, float]:
    """Hybrid Accuracy of each mode that leaves the choice to the model.

    Args:
        thoughts: what each mode leaves open.

    Returns:
        Nothing for a mode none of whose prompts was answered in at least two assigned modes.
    """
    prompts: dict[Hashable, list[Answered]] = defaultdict(list)
    for answer in answers:
        prompts[answer.prompt].append(answer)
    found: dict[str, list[float]] = defaultdict(list)
    for members in prompts.values():
        better = _better(members, thoughts)
        free: dict[str, list[bool]] = defaultdict(list)
        for answer in members:
            mode, response = answer.rollout.request.mode, answer.rollout.response
            if better is not None and thoughts[mode] == "free":
                thinks = bool(response.thought) == (thoughts[better] == "opened")
                free[mode].append(response.chosen == better if response.chosen else thinks)
        for mode, hits in free.items():
            found[mode].append(sum(hits) / len(hits))
    return {mode: sum(values) / len(values) for mode, values in found.items()}


def _better(members: Sequence[Answered], thoughts: Mapping[str, Thought]) -> str | None:
    by_mode: dict[str, list[Answered]] = defaultdict(list)
    for answer in members:
        mode = answer.rollout.request.mode
        if thoughts[mode] != "free":
            by_mode[mode].append(answer)
    if len(by_mode) < 2:
        return None

    def merit(mode: str) -> tuple[float, float]:
        own = by_mode[mode]
        tokens = sum(len(answer.rollout.generation.ids) for answer in own)
        return sum(answer.accuracy for answer in own) / len(own), -tokens / len(own)

    return max(by_mode, key=merit)
