"""The leak meter: thought where none is asked for, none where it is, and how much a text doubts itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.insight.metrics import mean
from hybrid_rl.protocols import Thought
from hybrid_rl.records import Rollout


class Markers:
    """Finds reflection markers.

    Args:
        words: the markers; case does not matter, and one that begins or ends within a longer word does not count.
    """

    def __init__(self, words: Sequence[str]) -> None:
        # Longest first: "let me double-check" is one marker. Spaces and line breaks are alike.
        ordered = sorted(dict.fromkeys(word.lower() for word in words), key=len, reverse=True)
        spaced = {word: r"\s+".join(map(re.escape, word.split())) for word in ordered}
        # Scripts without spaces know no borders of words. Lower case and one border around all are ten times as fast as
        # borders and case in each.
        bounded = [
            pattern for word, pattern in spaced.items() if re.fullmatch(r"\w.*\w|\w", word, re.ASCII | re.DOTALL)
        ]
        others = [pattern for pattern in spaced.values() if pattern not in bounded]
        pieces = [rf"\b(?:{'|'.join(bounded)})\b" if bounded else "", "|".join(others)]
        self._patterns = [re.compile(piece) for piece in pieces if piece]

    def count(self, text: str) -> int:
        lowered = text.lower()
        return sum(len(pattern.findall(lowered)) for pattern in self._patterns)


def thought_metrics(groups: Sequence[Group], thoughts: Mapping[str, Thought], markers: Markers) -> dict[str, float]:
    """The figures of a step by mode, named as in `hybrid_rl.insight.names`.

    Args:
        thoughts: by mode, what its prompt leaves: an open think block, a closed one, or the choice.
    """
    rollouts = [sample.rollout for group in groups for sample in group.samples]
    result: dict[str, float] = {}
    for mode in dict.fromkeys(rollout.request.mode for rollout in rollouts):
        own = [rollout for rollout in rollouts if rollout.request.mode == mode]
        tokens = sum(rollout.num_sampled_tokens for rollout in own)
        found = sum(markers.count(rollout.response.text) for rollout in own)
        result |= {
            f"visible_thought/{mode}": mean(_thinks_visibly(rollout, markers) for rollout in own),
            f"reflections_per_1k/{mode}": 1000 * found / max(tokens, 1),
            f"closed_by_budget/{mode}": mean(rollout.closed_by_budget for rollout in own),
        }
        if thoughts[mode] == "opened":
            result[f"empty_thought/{mode}"] = mean(not rollout.response.thought for rollout in own)
        if thoughts[mode] == "closed":
            leaks = (rollout.response.leaked or _thinks_visibly(rollout, markers) for rollout in own)
            result[f"leaked_thought/{mode}"] = mean(leaks)
    return result


def _thinks_visibly(rollout: Rollout, markers: Markers) -> bool:
    """There is a marker outside of the think block; where the thought never ended, nothing is outside."""
    return markers.count(rollout.response.answer or "") > 0
