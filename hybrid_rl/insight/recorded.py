"""What a run has recorded in its folder so far, read only: what cannot be read counts as not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hybrid_rl.errors import RunFolderError
from hybrid_rl.insight.comparison import finite, mapping
from hybrid_rl.insight.names import MODE_METRICS

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """What is in the folder of a run; any of it may be missing.

    Attributes:
        metrics: one entry per step, in order of the steps; where a resumed run wrote a step twice, the later one.
        evals: step and `{mode: {...}}` of the intermediate evaluations.
        set_evals: step and `{set: {mode: {...}}}` of those on named sets.
        rollout_files: step and file of the recorded responses.
        modes: in the order of the config; a mode's place gives its colour.
    """

    path: Path
    config: str
    metrics: list[Metrics]
    summary: dict[str, Any]
    evals: list[tuple[int, dict[str, Any]]]
    set_evals: list[tuple[int, dict[str, Any]]]
    rollout_files: list[tuple[int, Path]]
    modes: list[str]

    @property
    def last_step(self) -> int:
        return int(self.metrics[-1]["step"]) if self.metrics else 0


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; a torn last line is passed over."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(value, dict):
                    yield value
    except OSError:
        return


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _metrics(path: Path) -> list[Metrics]:
    by_step: dict[int, Metrics] = {}
    for row in read_lines(path):
        values = {key: number for key, value in row.items() if (number := finite(value)) is not None}
        if "step" in values:
            by_step[int(values["step"])] = values
    return [by_step[step] for step in sorted(by_step)]


def _evals(path: Path, kind: str) -> list[tuple[int, dict[str, Any]]]:
    found: dict[int, dict[str, Any]] = {}
    for row in read_lines(path):
        step = finite(row.get("step"))
        if step is not None and isinstance(row.get(kind), dict):
            found[int(step)] = row[kind]
    return sorted(found.items())


def _rollout_files(folder: Path) -> list[tuple[int, Path]]:
    found = []
    for path in folder.glob("step_*.jsonl"):
        match = re.fullmatch(r"step_(\d{1,12})\.jsonl", path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found)


def _config_modes(config: str) -> list[str]:
    try:
        values = yaml.safe_load(config)
    except (yaml.YAMLError, RecursionError, ValueError):
        return []
    return [str(mode) for mode in mapping(mapping(mapping(values).get("modes")).get("kinds"))]


def mode_names(metrics: Sequence[Mapping[str, float]]) -> list[str]:
    """The modes that flat metrics speak of, in order of appearance."""
    pairs = (key.split("/") for row in metrics for key in row)
    return list(dict.fromkeys(pair[1] for pair in pairs if len(pair) == 2 and pair[0] in MODE_METRICS))


def _modes(config: str, summary: dict[str, Any], metrics: list[Metrics], evals: list[tuple[int, Any]]) -> list[str]:
    tables = [*mapping(summary.get("eval")).values(), summary.get("tokens"), *(entry for _, entry in evals)]
    names = [*_config_modes(config), *(str(mode) for table in tables for mode in mapping(table))]
    return list(dict.fromkeys([*names, *mode_names(metrics)]))


def read_run(path: Path) -> RecordedRun:
    """Read everything but the recorded responses, which may be large.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not path.is_dir():
        raise RunFolderError(f"{path} is not a run folder; give the folder that `hybrid-rl train` wrote")
    config, summary = _read_text(path / "config.yaml"), _read_object(path / "summary.json")
    metrics, evals = _metrics(path / "metrics.jsonl"), _evals(path / "eval.jsonl", "eval")
    return RecordedRun(
        path=path,
        config=config,
        metrics=metrics,
        summary=summary,
        evals=evals,
        set_evals=_evals(path / "eval.jsonl", "eval_sets"),
        rollout_files=_rollout_files(path / "rollouts"),
        modes=_modes(config, summary, metrics, evals),
    )
