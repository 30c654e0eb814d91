"""Which recorded responses are worth a human's look: those on which judges disagree, and a control drawn at random."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hybrid_rl.insight.comparison import finite, mapping
from hybrid_rl.insight.recorded import RecordedRun, read_lines

GRADERS, GROUP, PARTS, CONTROL = "graders", "group", "parts", "control"
STRATA = (GRADERS, GROUP, PARTS, CONTROL)
"""The second grader, the answer of most of the group, or another part of the reward speaks against the verdict."""
_RIGHT = 0.5

Row = dict[str, Any]
Second = Callable[[Sequence[Row]], Sequence[float | None]]
"""A second opinion on recorded responses: a score each, None where it has none."""


@dataclass(frozen=True, slots=True)
class Key:
    """Where a response is recorded: the step, and the line of its file from 0 on."""

    step: int
    line: int


@dataclass(frozen=True, slots=True)
class Draw:
    """Responses to be marked.

    Attributes:
        population: judged responses of the run by stratum. The strata are disjoint and hold all of them.
        chosen: in the order in which they are shown, with the stratum of each.
    """

    population: Mapping[str, int]
    chosen: tuple[tuple[Key, str], ...]


def draw(run: RecordedRun, *, samples: int, seed: int, parts: Sequence[str] = (), second: Second | None = None) -> Draw:
    """Sort all judged responses into strata and draw from each at random.

    Half of the samples, or what is left of them, are the control; the others are shared evenly by the disagreements.

    Args:
        parts: parts of the reward beside `accuracy` that judge whether an answer is right.
    """
    by_stratum: dict[str, list[Key]] = {stratum: [] for stratum in STRATA}
    for step, path in run.rollout_files:
        rows = list(read_lines(path))
        judged = [place for place, row in enumerate(rows) if _accuracy(row) is not None]
        opinions = second([rows[place] for place in judged]) if second is not None else [None] * len(judged)
        outvoted = _outvoted(rows)
        for place, opinion in zip(judged, opinions, strict=True):
            row = rows[place]
            if opinion is not None and (opinion > _RIGHT) != _is_right(row):
                stratum = GRADERS
            elif place in outvoted:
                stratum = GROUP
            elif any(_speaks_against(row, part) for part in parts):
                stratum = PARTS
            else:
                stratum = CONTROL
            by_stratum[stratum].append(Key(step, place))
    random = Random(seed)
    counts = _shares({stratum: len(keys) for stratum, keys in by_stratum.items()}, samples)
    chosen = [(key, s) for s, keys in by_stratum.items() for key in random.sample(keys, counts[s])]
    random.shuffle(chosen)  # so that whoever marks cannot tell the stratum, and may stop at any time
    return Draw({stratum: len(keys) for stratum, keys in by_stratum.items()}, tuple(chosen))


def _shares(population: Mapping[str, int], samples: int) -> dict[str, int]:
    """How many of each stratum; what a small one cannot give goes to the others."""
    counts = dict.fromkeys(population, 0)
    for step in range(samples):
        open_strata = [s for s in population if counts[s] < population[s]]
        if not open_strata:
            break
        contested = [s for s in open_strata if s != CONTROL]
        control = CONTROL in open_strata and (step % 2 == 0 or not contested)
        counts[CONTROL if control else min(contested, key=lambda s: counts[s])] += 1
    return counts


def _outvoted(rows: Sequence[Row]) -> set[int]:
    """Places of responses with the answer that more than half of their group gave, where it is judged wrong."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        groups[str(row.get("group"))].append(place)
    found = set()
    for places in groups.values():
        answers = {place: _plain(rows[place].get("answer")) for place in places}
        (answer, votes), *_ = Counter(a for a in answers.values() if a).most_common(1) or [("", 0)]
        if 2 * votes > len(places) and votes > 1:
            found |= {
                p for p in places if answers[p] == answer and _accuracy(rows[p]) is not None and not _is_right(rows[p])
            }
    return found


def _plain(answer: object) -> str:
    return " ".join(str(answer).casefold().split()) if answer is not None else ""


def _accuracy(row: Row) -> float | None:
    return finite(mapping(row.get("parts")).get("accuracy"))


def _is_right(row: Row) -> bool:
    return (_accuracy(row) or 0.0) > _RIGHT


def _speaks_against(row: Row, part: str) -> bool:
    value = finite(mapping(row.get("parts")).get(part))
    return value is not None and (value > _RIGHT) != _is_right(row)
