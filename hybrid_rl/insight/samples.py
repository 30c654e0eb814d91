"""Which recorded responses the report shows: a few groups of the first, a middle and the last recorded step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_rl.insight.comparison import finite, mapping
from hybrid_rl.insight.recorded import RecordedRun, read_lines
from hybrid_rl.insight.thumbnails import Thumbnail, thumbnails
from hybrid_rl.insight.visible import shorten, visible

GROUPS_PER_STEP = 6
IMAGES_PER_GROUP = 4
TEXT_BUDGET = 1_200_000
"""Characters of all shown responses together; a report stays below a few megabytes however large the groups are."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCard:
    """One response. `verdict`: `right`, `wrong`, or `unknown` without an accuracy part."""

    thought: str
    answer: str | None
    raw: str
    verdict: str
    parts: list[tuple[str, float | None]]
    reward: float | None
    advantage: float | None
    advantage_share: float
    finish: str
    outcome: str
    tokens: int | None
    versions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCard:
    """A prompt in a mode, and all of its responses."""

    mode: str
    place: int
    task: str
    prompt_id: str
    prompt: str
    gold: str
    images: list[Thumbnail]
    responses: list[ResponseCard]
    right: int
    judged: int
    mean_reward: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCard:
    """The shown groups of one step, of `recorded` in all."""

    step: int
    groups: list[GroupCard]
    recorded: int


def _groups(path: Path) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in read_lines(path):
        key = row.get("group") or f"{row.get('prompt_id')}/{row.get('mode')}"
        found.setdefault(str(key), []).append(row)
    return found


def _chosen_steps(files: list[tuple[int, Path]]) -> dict[int, dict[str, list[Row]]]:
    """First, middle and last step with responses; an empty or torn file gives way to its neighbour."""
    middle = (len(files) - 1) / 2
    from_middle = [file for _, file in sorted(enumerate(files), key=lambda entry: abs(entry[0] - middle))]
    chosen: dict[int, dict[str, list[Row]]] = {}
    for order in (files, from_middle, files[::-1]):
        for step, path in order:
            groups = chosen.get(step) or _groups(path)
            if groups:
                chosen[step] = groups
                break
    return dict(sorted(chosen.items()))


def balanced(groups: dict[str, list[Row]], limit: int = GROUPS_PER_STEP) -> list[list[Row]]:
    """Up to `limit` groups, spread over the pairs of mode and task, then over modes, then over tasks."""
    left = list(groups.values())
    chosen: list[list[Row]] = []
    pairs: Counter[tuple[str, str]] = Counter()
    modes: Counter[str] = Counter()
    tasks: Counter[str] = Counter()

    def kind(rows: list[Row]) -> tuple[str, str]:
        return str(rows[0].get("mode")), str(rows[0].get("task"))

    while left and len(chosen) < limit:
        best = min(left, key=lambda rows: (pairs[kind(rows)], modes[kind(rows)[0]], tasks[kind(rows)[1]]))
        left.remove(best)
        chosen.append(best)
        pairs[kind(best)] += 1
        modes[kind(best)[0]] += 1
        tasks[kind(best)[1]] += 1
    return sorted(chosen, key=lambda rows: (kind(rows)[1], str(rows[0].get("prompt_id")), kind(rows)[0]))


def _advantage(row: Row) -> float | None:
    """One number; where the estimator gave each token its own, their mean."""
    value = row.get("advantage")
    if not isinstance(value, list):
        return finite(value)
    numbers = [number for entry in value if (number := finite(entry)) is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _verdict(row: Row) -> str:
    accuracy = finite(mapping(row.get("parts")).get("accuracy"))
    if accuracy is None:
        return "unknown"
    return "right" if accuracy > 0.5 else "wrong"


def _response(row: Row, largest: float, limit: int) -> ResponseCard:
    advantage, ids, answer = _advantage(row), row.get("ids"), row.get("answer")
    versions = row.get("policy_versions")
    numbers = [version for version in versions if isinstance(version, int)] if isinstance(versions, list) else []
    return ResponseCard(
        thought=visible(shorten(str(row.get("thought") or "").strip(), limit)),
        answer=None if answer is None else visible(shorten(str(answer).strip(), limit)),
        raw=visible(shorten(str(row.get("text") or ""), limit)),
        verdict=_verdict(row),
        parts=[(visible(name), finite(value)) for name, value in mapping(row.get("parts")).items()],
        reward=finite(row.get("reward")),
        advantage=advantage,
        advantage_share=abs(advantage) / largest if advantage and largest else 0.0,
        finish=visible(row.get("finish") or ""),
        outcome=visible(row.get("outcome") or ""),
        tokens=len(ids) if isinstance(ids, list) else None,
        versions="–".join(str(version) for version in dict.fromkeys(numbers)),
    )


def _group(run: RecordedRun, rows: list[Row], limit: int) -> GroupCard:
    first, mode = rows[0], str(rows[0].get("mode"))
    largest = max((abs(_advantage(row) or 0.0) for row in rows), default=0.0)
    rewards = [reward for row in rows if (reward := finite(row.get("reward"))) is not None]
    verdicts = Counter(_verdict(row) for row in rows)
    return GroupCard(
        mode=visible(mode),
        place=run.modes.index(mode) if mode in run.modes else len(run.modes),
        task=visible(first.get("task") or ""),
        prompt_id=visible(first.get("prompt_id") or ""),
        prompt=visible(shorten(str(first.get("prompt") or "").strip(), limit)),
        gold=visible(shorten(str(first.get("gold") or ""), limit)),
        images=thumbnails(run.path, first, IMAGES_PER_GROUP),
        responses=[_response(row, largest, limit) for row in rows],
        right=verdicts["right"],
        judged=verdicts["right"] + verdicts["wrong"],
        mean_reward=sum(rewards) / len(rewards) if rewards else None,
    )


def read_samples(run: RecordedRun) -> list[StepCard]:
    """The steps to show, earliest first; empty where nothing was recorded."""
    steps = {step: (balanced(groups), len(groups)) for step, groups in _chosen_steps(run.rollout_files).items()}
    shown = sum(len(rows) for groups, _ in steps.values() for rows in groups)
    # A response brings up to three texts: raw, thought, answer.
    limit = min(3000, max(120, TEXT_BUDGET // (3 * max(shown, 1))))
    return [
        StepCard(step=step, groups=[_group(run, rows, limit) for rows in groups], recorded=recorded)
        for step, (groups, recorded) in steps.items()
    ]
