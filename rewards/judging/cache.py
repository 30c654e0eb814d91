"""Verdicts on disk, by the content of what was asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewards.judging.verdict import UnreadableVerdict, Verdict, read_json, read_verdict

_MAX_ENTRY_BYTES = 100_000


def default_folder() -> Path:
    """Where verdicts are kept if the config names no place: beside the kept warm-ups."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hybrid-rl" / "judge"


def content_key(content: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a verdict, in a fixed order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class VerdictCache:
    """A folder that several processes may share. A file that is not a whole verdict of its key is as good as none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Verdict | None:
        try:
            with self._path(key).open("rb") as file:
                data = file.read(_MAX_ENTRY_BYTES + 1)
        except FileNotFoundError:
            return None
        try:
            found = read_json(data) if len(data) <= _MAX_ENTRY_BYTES else None
            if not isinstance(found, dict) or found.get("key") != key:
                return None
            return read_verdict(json.dumps(found.get("verdict")))
        except UnreadableVerdict:
            return None

    def put(self, key: str, verdict: Verdict, model: str) -> None:
        """Keep a verdict; it appears whole or not at all.

        Raises:
            OSError: the folder cannot be written.
        """
        entry = {"key": key, "model": model, "verdict": {"reason": verdict.reason, "score": verdict.score}}
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(entry, file)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            OSError: it cannot be made or written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    def note(self, line: Mapping[str, Any]) -> None:
        """Add a line to `usage.jsonl`, which adds up what every process and run has spent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # One write in append mode: lines of several processes do not mix.
        descriptor = os.open(self.folder / "usage.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            os.close(descriptor)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
