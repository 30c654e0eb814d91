"""The runs that a page compares: read, checked, and named so that each can be told from the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybrid_rl.errors import RunFolderError
from hybrid_rl.insight.recorded import RecordedRun, read_run

MAX_RUNS = 18
"""Colours times dashes of a line: more could not be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRun:
    """A run, what the page calls it, and its place, which gives its colour."""

    label: str
    place: int
    run: RecordedRun


def read_runs(paths: Sequence[Path]) -> list[NamedRun]:
    """Read the folders of runs, in the order given.

    Raises:
        RunFolderError: a folder is missing, is none of a run, has no finished step, or is given twice.
    """
    if len(paths) > MAX_RUNS:
        raise RunFolderError(f"{len(paths)} runs are more than a page can tell apart; give {MAX_RUNS} at most")
    places = [path.resolve() for path in paths]
    for place, path in zip(places, paths, strict=True):
        _check_folder(path)
        if places.count(place) > 1:
            raise RunFolderError(f"run {path} is given twice; give each run once")
    runs = [_read(path) for path in paths]
    return [
        NamedRun(label=label, place=place, run=run)
        for place, (label, run) in enumerate(zip(labels(places), runs, strict=True))
    ]


def _check_folder(path: Path) -> None:
    if not path.exists():
        raise RunFolderError(f"there is no run folder {path}; check the path")
    if (path / "ablation.json").is_file():
        raise RunFolderError(f"{path} is an ablation, which has a page of its own; give runs in it, as ARM/seed_N")
    if not (path / "config.yaml").is_file():
        raise RunFolderError(f"{path} is not a run folder: it has no config.yaml; check the path")


def _read(path: Path) -> RecordedRun:
    run = read_run(path)
    if not run.metrics:
        raise RunFolderError(f"run {path} has no finished step in its metrics.jsonl, so there is nothing to draw yet")
    return run


def labels(paths: Sequence[Path]) -> list[str]:
    """What tells absolute paths apart: each without the folders that all share at its beginning and at its end.

    >>> labels([Path("/runs/a/seed_0"), Path("/runs/b/seed_0")])
    ['a', 'b']
    """
    if len(paths) == 1:
        return [paths[0].name]
    parts = [list(path.parts) for path in paths]
    while all(len(own) > 1 for own in parts) and len({own[0] for own in parts}) == 1:
        parts = [own[1:] for own in parts]
    while all(len(own) > 1 for own in parts) and len({own[-1] for own in parts}) == 1:
        parts = [own[:-1] for own in parts]
    return ["/".join(own) for own in parts]
