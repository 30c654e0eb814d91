"""The folder of an ablation: `ablation.json` says what it stands for, arms lie below it as `ARM/seed_N`."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hybrid_rl.errors import RunFolderError
from hybrid_rl.insight.atomic import write_atomically
from hybrid_rl.studies.design import Design

IDENTITY = "ablation.json"


@contextmanager
def opened(design: Design) -> Iterator[None]:
    """Make the folder, or go on with the one of the same ablation; nobody else works in it inside the block.

    Raises:
        RunFolderError: it is something else's, was made with another config or without one of these arms, or is in use.
    """
    folder = design.folder
    own = folder / IDENTITY
    check(design)
    with ExitStack() as locks:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not own.is_file():
                _write(own, design)
            locks.enter_context(_locked(own))
            check(design)  # again: until now it may have grown
            if json.loads(own.read_text(encoding="utf-8")) != _identity(design):
                _write(own, design)
                locks.enter_context(_locked(own))  # a new file, which others would find free
        except RunFolderError:
            raise
        except OSError as error:
            raise RunFolderError(f"ablation folder {folder} cannot be made: {error.strerror}") from error
        yield


@contextmanager
def _locked(own: Path) -> Iterator[None]:
    with own.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(f"ablation {own.parent} is being made by another process; wait for it") from error
        except OSError:  # the file system has no locks
            pass
        yield


def check(design: Design) -> None:
    """Refuse a folder that holds something else. Arms may have come to those it was made with. Changes nothing."""
    folder = design.folder
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunFolderError(f"ablation folder {folder} is a file; name another with run.dir")
    own = folder / IDENTITY
    if not own.is_file():
        if any(folder.iterdir()):
            raise RunFolderError(f"folder {folder} is not that of an ablation; name another with run.dir")
        return
    try:
        before = json.loads(own.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{own} is damaged ({error}); restore it, or name another run.dir") from error
    now = _identity(design)
    if before != now and not _extends(now, before):
        raise RunFolderError(
            f"ablation folder {folder} was made with another config: {_first_difference(before, now)}; name another "
            f"run.dir (its finished arms are kept)"
        )


def _extends(now: Any, before: Any) -> bool:
    """Whether all that differs is that there are more arms."""
    try:
        others_alike = {**now, "arms": None} == {**before, "arms": None}
        return others_alike and all(arm in now["arms"] for arm in before["arms"])
    except (KeyError, TypeError):
        return False


def _identity(design: Design) -> Any:
    """As it is read back."""
    return json.loads(json.dumps(design.identity()))


def _write(own: Path, design: Design) -> None:
    write_atomically(own, json.dumps(design.identity(), indent=2) + "\n")


def _first_difference(before: Any, now: Any, key: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            if before.get(name) != now.get(name):
                return _first_difference(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    if key == "arms":
        return f"its arms are {_names(before)}, here they are {_names(now)}"
    return f"{key.removeprefix('config.')} is {_shown(before)} there and {_shown(now)} here"


def _names(arms: Any) -> str:
    return " ".join(str(arm.get("name")) for arm in arms) if isinstance(arms, list) else "unknown"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def write_config(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
