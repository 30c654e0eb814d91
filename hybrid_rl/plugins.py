"""`module:name` or `file.py:name` -> object. The only plug-in mechanism; the built-ins are loaded by it too."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from hybrid_rl.errors import PluginError

_OWN_PACKAGES = ("rewards", "rollouts", "model")
_REPOSITORY = Path(__file__).resolve().parent.parent


def load(target: str, search: Sequence[str] = (), *, group: str = "hybrid_rl.plugins") -> Any:
    """Resolve a target to the object it names.

    Args:
        target: `module:name`, `file.py:name`, or the short name of an entry point in `group`.
        search: folders against which files and modules are resolved, first match wins.
        group: entry-point group for short names.

    Raises:
        PluginError: with the target and the reason, if it does not resolve.
    """
    place, separator, name = target.partition(":")
    if not separator:
        return _load_entry_point(target, group)
    if not place or not name:
        raise PluginError(f"'{target}' is not a plug-in name; write module:name or file.py:name")
    module = _load_file(place, target, search) if place.endswith(".py") else _load_module(place, target, search)
    value: Any = module
    for attribute in name.split("."):
        if not hasattr(value, attribute):
            public = [n for n in dir(value) if not n.startswith("_")]
            near = difflib.get_close_matches(attribute, public, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(public) or 'nothing public'}"
            raise PluginError(f"'{target}': {place} has no '{attribute}'; {hint}")
        value = getattr(value, attribute)
    return value


def build(target: str, search: Sequence[str], /, *positional: Any, **arguments: Any) -> Any:
    """Load a class or factory and call it; a call that does not fit its signature is a PluginError."""
    factory = load(target, search)
    if not callable(factory):
        raise PluginError(f"'{target}' is not callable; name a class or a function")
    check_call(target, factory, positional, arguments)
    return factory(*positional, **arguments)


def check_call(target: str, factory: Callable[..., Any], positional: Iterable[Any], arguments: dict[str, Any]) -> None:
    """Raise a PluginError if `factory(*positional, **arguments)` would not fit the signature."""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some C callables have none; the call itself will tell
        return
    try:
        signature.bind(*positional, **arguments)
    except TypeError as error:
        raise PluginError(
            f"'{target}' cannot be called with {', '.join(arguments) or 'no arguments'}: {error}; its signature is "
            f"{signature}"
        ) from error


def _load_entry_point(name: str, group: str) -> Any:
    found = entry_points(group=group)
    for entry in found:
        if entry.name == name:
            return entry.load()
    near = difflib.get_close_matches(name, sorted(entry.name for entry in found), n=1)
    hint = f"did you mean '{near[0]}'? Or " if near else ""
    raise PluginError(f"'{name}' is not a plug-in name; {hint}write module:name or file.py:name")


def _load_file(place: str, target: str, search: Sequence[str]) -> ModuleType:
    candidates = [Path(place)] if Path(place).is_absolute() else [Path(folder) / place for folder in search]
    for path in candidates:
        if path.is_file():
            break
    else:
        looked = ", ".join(str(c) for c in candidates) or place
        raise PluginError(f"'{target}': there is no file {looked}")
    # The name carries a digest of the path: two files of one name never collide, every process agrees.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    module_name = f"hybrid_rl_plugin_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise PluginError(f"'{target}': {path} does not import: {type(error).__name__}: {error}") from error
    return module


def _load_module(place: str, target: str, search: Sequence[str]) -> ModuleType:
    for folder in search:
        # Appended, so that a user's folder can never shadow an installed package.
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        module = importlib.import_module(place)
    except Exception as error:
        raise PluginError(f"'{target}' does not import: {type(error).__name__}: {error}") from error
    finally:
        _refuse_shadows()
    return module


def _refuse_shadows() -> None:
    """Our package names are plain words; say so clearly when a user's file has taken one."""
    for name in _OWN_PACKAGES:
        module = sys.modules.get(name)
        origin = getattr(module, "__file__", None) if module else None
        if origin and Path(origin).resolve().parent.parent != _REPOSITORY:
            raise PluginError(
                f"the package `{name}` came from {origin}, not from hybrid-rl; rename that file, or start with the "
                f"`hybrid-rl` command from another folder"
            )
