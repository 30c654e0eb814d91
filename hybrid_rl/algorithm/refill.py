"""Dynamic sampling: what admission has dropped is replaced by fresh prompts (DAPO, arXiv 2503.14476, section 3.2).

DAPO samples on until the batch is full, whatever it is filled with. Groups without signal are not spread evenly over
modes: the easier a mode is at present, the more of its groups are all right, and the others would take its place. So
here a response that was dropped is replaced by one of the same source in the same mode, and modes and sources keep
their shares of the update wherever the rounds suffice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from hybrid_rl.data.mixture import Mixture
from hybrid_rl.records import Prompt, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Vacancy:
    """What a fresh prompt is wanted for.

    Attributes:
        source: that it comes from.
        counts: responses by mode.
    """

    source: str
    counts: Mapping[str, int]


def vacancies(requests: Sequence[Request], dropped: Container[object]) -> list[Vacancy]:
    """One for each draw that has lost a group, with what it has lost.

    Args:
        requests: of a round; those of a draw are adjacent.
        dropped: names of groups.
    """
    found = []
    for _, members in groupby(requests, key=lambda request: request.place):
        lost = [request for request in members if request.group in dropped]
        if lost:
            counts = Counter(request.mode for request in lost)
            found.append(Vacancy(source=lost[0].prompt.source, counts=dict(counts)))
    return found


def fill(
    wanted: Sequence[Vacancy],
    prompts: Mixture,
    used: Mapping[str, int],
    fits: Callable[[Prompt, Mapping[str, int]], bool],
) -> tuple[list[Prompt], dict[str, int]]:
    """A spare prompt for each vacancy.

    Args:
        used: by source, how many spare prompts have been used up.
        fits: whether a prompt can be answered in these modes; those that cannot are passed over. The prompt that left
            the vacancy can, and is met again at the latest after all others.

    Returns:
        The prompts, and `used` after them.
    """
    found, used = [], dict(used)
    for vacancy in wanted:
        while True:
            number = used.get(vacancy.source, 0)
            prompt = prompts.spare(vacancy.source, number)
            used[vacancy.source] = number + 1
            if fits(prompt, vacancy.counts):
                found.append(prompt)
                break
    return found, used
