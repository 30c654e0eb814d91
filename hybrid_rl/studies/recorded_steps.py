"""The recorded responses of a run as the records that they were: requests, rollouts, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from hybrid_rl.algorithm.assignment import mode_schedule
from hybrid_rl.algorithm.refill import vacancies
from hybrid_rl.config import Config
from hybrid_rl.dealing import Dealer
from hybrid_rl.errors import RunFolderError
from hybrid_rl.insight.recorded import read_lines
from hybrid_rl.preflight import Material
from hybrid_rl.records import Outcome, Request, Rollout, Score
from hybrid_rl.rollout_rows import belongs_to, rollout_of
from hybrid_rl.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """One step, in the order of its responses.

    Attributes:
        advantages: as recorded, one value a token.
        trained: as recorded: whether the loss saw the response.
    """

    step: int
    rollouts: list[Rollout]
    scores: list[Score]
    advantages: list[tuple[float, ...]]
    trained: list[bool]


def recorded_steps(folder: RunFolder, config: Config, material: Material) -> Iterator[RecordedStep]:
    """The steps of a run from the first on, as far as they are recorded without a gap.

    Requests are dealt again, which gives the same ones; every row is held against its request.

    Raises:
        RunFolderError: there are none, or they are not what this config deals.
    """
    files = sorted((folder.path / "rollouts").glob("step_*.jsonl"))
    if not files:
        raise RunFolderError(f"run {folder.path} has no recorded responses; it has not finished a step")
    dealer, used = Dealer(config, material.prompts, mode_schedule(config)), dict[str, int]()
    numbered = takewhile(lambda pair: pair[1].stem == f"step_{pair[0]:06d}", enumerate(files, 1))
    for step, file in numbered:
        rows = list(read_lines(file))
        requests, used = _requests(rows, dealer, used, step, config)
        if len(rows) != len(requests) or not all(map(belongs_to, rows, requests)):
            raise RunFolderError(
                f"{file} does not hold the responses that its config asks for; the data or the config has changed "
                f"since the run"
            )
        rollouts = [rollout_of(row, request, material.format) for row, request in zip(rows, requests, strict=True)]
        yield RecordedStep(
            step,
            rollouts,
            [_score(row) for row in rows],
            [_per_token(row) for row in rows],
            [bool(row.get("trained", row["outcome"] == Outcome.OK)) for row in rows],
        )


def _requests(
    rows: Sequence[Mapping[str, Any]], dealer: Dealer, used: Mapping[str, int], step: int, config: Config
) -> tuple[list[Request], dict[str, int]]:
    """The requests of a recorded step: its first ones, and those that replaced what is recorded as dropped.

    Args:
        used: spare prompts that the steps before have used up.
    """
    requests, used = dealer.first(step), dict(used)
    last, places = requests, config.train.prompts_per_step
    lost = {row.get("group") for row in rows if row.get("dropped")}
    while len(requests) < len(rows) and (wanted := vacancies(last, lost)):
        last, used = dealer.again(step, wanted, used, places)
        places += len(wanted)
        requests = requests + last
    return requests, used


def _score(row: Mapping[str, Any]) -> Score:
    reward = row["reward"]
    return Score(
        value=0.0 if reward is None else reward,
        parts=row["parts"],
        outcome=Outcome(row["outcome"]),
        terms=row.get("terms", {}),
    )


def _per_token(row: Mapping[str, Any]) -> tuple[float, ...]:
    value = row["advantage"]
    return tuple(value) if isinstance(value, list) else (value,) * len(row["ids"])
