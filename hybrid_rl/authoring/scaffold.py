"""`rewards new`: a reward that works, its test, and its entry in a config."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from hybrid_rl.config import load_config
from hybrid_rl.errors import ConfigError, RunFolderError, UserError

_REWARD = '''"""What this reward is for."""

from __future__ import annotations


def {name}(answer: str, gold: str) -> float:
    """1 if answer and reference have the same words, else 0.

    Ask for what you need by parameter name: answer, thought, text, ids, mode, gold or any column of your data. Return a
    number, or None to abstain. It runs in a process that is killed after rewards.{name}.timeout_s.
    """
    return float(answer.lower().split() == gold.lower().split())
'''
_TEST = '''"""Answers that the reward must and must not accept. Run with pytest in this folder."""

from __future__ import annotations

import pytest
from {name} import {name}


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("Red  apple", "red apple", 1),
        ("red", "red apple", 0),
        ("", "red apple", 0),
    ],
)
def test_{name}(answer: str, gold: str, expected: float) -> None:
    assert {name}(answer, gold) == expected
'''


def entry(name: str) -> str:
    """The line of a config that uses the reward."""
    return f'  {name}: {{target: "{name}.py:{name}", weight: 0.5}}'


def new_reward(name: str, folder: Path, config: Path | None) -> list[Path]:
    """Write the files, and enter the reward into a config; nothing is overwritten.

    Args:
        folder: where the files go; the config's own folder, if there is one.

    Returns:
        The files that were written or changed.

    Raises:
        UserError: the name cannot be used, a file exists, or the config has no place for it.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"'{name}' is no name for a reward; use small letters, digits and _")
    changed = _entered(config, name) if config is not None else None
    folder = config.resolve().parent if config is not None else folder
    files = {folder / f"{name}.py": _REWARD, folder / f"test_{name}.py": _TEST}
    for path in files:
        if path.exists():
            raise RunFolderError(f"{path} exists already; choose another name")
    for path, text in files.items():
        path.write_text(text.format(name=name), encoding="utf-8")
    if config is None or changed is None:
        return list(files)
    before = config.read_text(encoding="utf-8")
    config.write_text(changed, encoding="utf-8")
    try:
        load_config(config)
    except UserError:
        config.write_text(before, encoding="utf-8")
        for path in files:
            path.unlink()
        raise
    return [*files, config]


def _entered(config: Path, name: str) -> str:
    """The config's text with the entry right under `rewards:`; comments stay as they are."""
    loaded = load_config(config)
    if name in loaded.rewards:
        raise ConfigError(f"{config} has a reward '{name}' already; choose another name")
    lines = config.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        if re.match(r"rewards:\s*(#.*)?$", line):
            below = next((row for row in lines[number + 1 :] if row.strip() and not row.strip().startswith("#")), "  x")
            indent = below[: len(below) - len(below.lstrip())] or "  "
            return "\n".join([*lines[: number + 1], indent + entry(name).strip(), *lines[number + 1 :]])
    raise ConfigError(f"{config} has no line `rewards:`; put this under it by hand: {entry(name).strip()}")
