"""What a reward would import at its first call is imported before, so that it is not taken from a case's time limit."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

_ROUNDS = 8


def warm(reward: Any) -> None:
    """Import what the reward's package imports inside functions, then call `warm_up` of the reward or of its module.

    Imports that fail are left for the call that needs them. What `warm_up` raises is raised: its author wrote it.
    """
    origin = reward if inspect.isroutine(reward) or inspect.isclass(reward) else type(reward)
    module = sys.modules.get(origin.__module__)
    if module is None:
        return
    seen: set[str] = set()
    for _ in range(_ROUNDS):  # a module that is imported now may itself put imports off
        fresh = [name for name in _family(module) if name not in seen]
        if not fresh:
            break
        seen.update(fresh)
        for name in fresh:
            for wanted in _inner_imports(sys.modules[name]):
                with contextlib.suppress(Exception):
                    importlib.import_module(wanted)
    warm_up: Callable[[], object] | None = getattr(reward, "warm_up", None) or getattr(module, "warm_up", None)
    if warm_up is not None:
        warm_up()


def _family(module: ModuleType) -> list[str]:
    """The module and its loaded relatives in the same package."""
    package = module.__name__.partition(".")[0]
    if package == "hybrid_rl":
        return [module.__name__]
    return [name for name in list(sys.modules) if name == module.__name__ or name.startswith(f"{package}.")]


def _inner_imports(module: ModuleType) -> Iterator[str]:
    """Modules that functions of a module import."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):  # a module without source puts nothing off that we could see
        return
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
