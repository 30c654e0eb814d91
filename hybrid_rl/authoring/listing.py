"""The rewards that can be named: built-in ones and those that installed packages offer."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

_BUILT_INS = "rewards"
_ENTRY_POINTS = "hybrid_rl.rewards"


@dataclass(frozen=True, slots=True)
class Listed:
    """A reward that can be named in a config.

    Attributes:
        name: what to write as `target`.
        summary: first line of its docstring.
    """

    name: str
    summary: str


def list_rewards() -> list[Listed]:
    """Built-ins first, then entry points. Files are read, not imported: listing must be quick and cannot fail."""
    spec = importlib.util.find_spec(_BUILT_INS)
    folders = list(spec.submodule_search_locations or []) if spec else []
    built_in = [listed for folder in folders for path in sorted(Path(folder).glob("*.py")) for listed in _in_file(path)]
    offered = [
        Listed(entry.name, f"{entry.value}, from {entry.dist.name if entry.dist else 'an installed package'}")
        for entry in sorted(entry_points(group=_ENTRY_POINTS), key=lambda entry: entry.name)
    ]
    return built_in + offered


def _in_file(path: Path) -> Iterator[Listed]:
    """Public functions and callable classes whose name is the reward's: they take the answer, the text or the ids."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and _is_reward(node):
            yield Listed(f"{_BUILT_INS}.{path.stem}:{node.name}", _summary(node))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            calls = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__call__"]
            if any(_is_reward(call) for call in calls):
                yield Listed(f"{_BUILT_INS}.{path.stem}:{node.name}", _summary(node))


def _is_reward(node: ast.FunctionDef) -> bool:
    """A reward returns a number, or one for each of several responses, and reads something of a response."""
    names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
    returns = ast.unparse(node.returns) if node.returns else ""
    return bool({"float", "list[float]"} & {*returns.split(" | ")}) and bool(
        names & {"answer", "text", "ids", "thought", "well_formed", "length"}
    )


def _summary(node: ast.FunctionDef | ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0]
