"""Who else has judged a response: other parts of the reward that look at the reference, and a second grader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybrid_rl.authoring.audit_draw import Row, Second
from hybrid_rl.authoring.subject import Subject
from hybrid_rl.config import Config
from hybrid_rl.errors import PluginError
from hybrid_rl.scoring.scorer import place_rewards

_BATCH_TIMEOUT_S = 5.0


def judging_parts(config: Config) -> list[str]:
    """Parts beside `accuracy` that look at the reference; those whose reward is not at hand any more are left out."""
    found = []
    for name, part in config.rewards.items():
        if name == "accuracy":
            continue
        try:
            placed = place_rewards({name: part}, config.search)
        except PluginError:
            continue
        if any("gold" in reward.reward.wanted for reward in placed.values()):
            found.append(name)
    return found


def second_grader(target: str, search: Sequence[str]) -> Second:
    """Scores recorded responses with another reward, in killable processes.

    Raises:
        PluginError: it does not load, or asks for what is not recorded.
    """
    subject = Subject(target, search, timeout_s=_BATCH_TIMEOUT_S)
    if subject.missing:
        raise PluginError(f"--second '{target}' asks for '{subject.missing[0]}', which a run does not record")

    def grade(rows: Sequence[Row]) -> list[float | None]:
        verdicts = subject.ask([(_answer(row), row.get("gold"), _recorded(row)) for row in rows])
        return [verdict.value for verdict in verdicts]

    return grade


def _answer(row: Row) -> str:
    return str(row.get("answer") or "")


def _recorded(row: Row) -> dict[str, Any]:
    names = ("text", "thought", "ids", "mode", "finish", "task")
    return {name: row[name] for name in names if name in row}
