"""Inputs that kill scorers: the second death puts one behind bars, for good if there is a file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEPT_CHARACTERS = 4000
"""Of each argument, in the file; the digest is of all of it."""
_DEATHS = 2


class Quarantine:
    """Counts the deaths that inputs have caused.

    Args:
        path: JSON lines, one an input; read at the start, so that a resumed run remembers. None: kept in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._deaths: Counter[str] = Counter()
        self._held: set[str] = set()
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._held.add(json.loads(line)["digest"])

    def holds(self, reward: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the input is not to be scored again."""
        return bool(self._held) and _digest(reward, arguments) in self._held

    def add_death(self, reward: str, arguments: Mapping[str, Any], reason: str) -> bool:
        """Note that the input has cost a scorer its life; True if it is held from now on."""
        digest = _digest(reward, arguments)
        self._deaths[digest] += 1
        if self._deaths[digest] < _DEATHS or digest in self._held:
            return digest in self._held
        self._held.add(digest)
        if self._path is not None and self._path.parent.is_dir():
            shown = {name: str(value)[:_KEPT_CHARACTERS] for name, value in arguments.items()}
            row = {"digest": digest, "reward": reward, "reason": reason, "arguments": shown}
            # One write of one line: several reward workers may append to the same file.
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=True) + "\n")
        return True


def _digest(reward: str, arguments: Mapping[str, Any]) -> str:
    content = json.dumps([reward, dict(arguments)], sort_keys=True, default=repr)
    return hashlib.sha256(content.encode()).hexdigest()
