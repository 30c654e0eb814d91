"""YAML file plus `a.b=value` overrides -> `Config`, or one sentence that says which key is wrong and how to mend it."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from hybrid_rl.config.model import ModelConfig
from hybrid_rl.config.root import Config
from hybrid_rl.config.yaml_reader import Document, KeyPath, parse_scalar, read_yaml
from hybrid_rl.errors import ConfigError

_COMMAND_LINE = "command line"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file and apply overrides.

    Args:
        path: YAML file.
        overrides: `a.b=value`, the value read as YAML; applied in order.

    Raises:
        ConfigError: names the place (file and line, or the command line), the key, and the nearest valid name.
    """
    path = Path(path)
    document = read_yaml(path)
    for override in overrides:
        _apply(document, override)
    values = document.values
    values.setdefault("name", path.stem)
    if isinstance(values.setdefault("search", []), list):
        folders = [*values["search"], str(path.resolve().parent), str(Path.cwd())]
        values["search"] = list(dict.fromkeys(folders))
    config = validate(document)
    return config.model_copy(update={"model": _with_absolute_path(config)})


def _with_absolute_path(config: Config) -> ModelConfig:
    """A relative `model.path` means the same folder wherever and whenever the run goes on."""
    path = config.model.path
    found = [str(Path(folder, path).resolve()) for folder in config.search if path and Path(folder, path).is_dir()]
    return config.model.model_copy(update={"path": found[0]}) if found else config.model


def validate(document: Document) -> Config:
    """Check the values of a document against the schema."""
    try:
        return Config.model_validate(document.values)
    except ValidationError as error:
        raise ConfigError(_explain(error, document)) from error


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(document: Document, override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not all(name.split(".")):
        raise ConfigError(f"{_COMMAND_LINE}: '{override}' is not an override; write section.key=value")
    keys = name.split(".")
    values: Any = document.values
    for depth, key in enumerate(keys[:-1]):
        if values.get(key) is None:
            values[key] = {}
            document.places[tuple(keys[: depth + 1])] = _COMMAND_LINE
        if not isinstance(values[key], dict):
            raise ConfigError(f"{_COMMAND_LINE}: '{'.'.join(keys[: depth + 1])}' has no keys below it")
        values = values[key]
    values[keys[-1]] = parse_scalar(text, f"{_COMMAND_LINE}: {name}")
    document.places[tuple(keys)] = _COMMAND_LINE


def _explain(error: ValidationError, document: Document) -> str:
    """One sentence for the first thing that is wrong; unknown keys first, since they cause the other complaints."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key: KeyPath = tuple(part for part in problem["loc"] if not str(part).startswith("<"))  # tags of a union
    dotted = ".".join(map(str, key))
    place = document.place(key)
    if problem["type"] == "extra_forbidden":
        return f"{place}: there is no key '{dotted}'{_suggest(key)}"
    if problem["type"] == "missing":
        return f"{place}: '{dotted}' is missing{_describe(key)}"
    message = re.sub(
        "dictionary or instance of .*|dictionary$", "mapping", problem["msg"].removeprefix("Value error, ")
    )
    given = problem.get("input")
    shown = f", not {given!r}" if isinstance(given, (str, int, float, bool)) or given is None else ""
    if problem["type"] == "value_error":
        shown = ""
    message = message[0].lower() + message[1:]
    return f"{place}: {dotted + ': ' if dotted else ''}{message}{shown}"


def _suggest(key: KeyPath) -> str:
    names = _names_at(key[:-1])
    near = difflib.get_close_matches(str(key[-1]), names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; valid here: {', '.join(names)}" if names else ""


def _describe(key: KeyPath) -> str:
    model = _model_at(key[:-1])
    field = model.model_fields.get(str(key[-1])) if model else None
    text = (field.description or "").split(". ")[0].rstrip(".") if field else ""
    return f"; it is: {text}" if text else ""


def _names_at(key: KeyPath) -> list[str]:
    model = _model_at(key)
    return list(model.model_fields) if model else []


def _section_or_first(annotation: Any) -> Any:
    """Of an optional or a choice, the section if there is one."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) not in (types.UnionType, typing.Union):
        return annotation
    found = [_section_or_first(a) for a in typing.get_args(annotation) if a is not type(None)]
    return next((a for a in found if isinstance(a, type) and issubclass(a, BaseModel)), found[0])


def _model_at(key: KeyPath) -> type[BaseModel] | None:
    """The section that a key path leads to, through optional and mapping types."""
    current: Any = Config
    for part in key:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        elif typing.get_origin(current) is dict:
            current = typing.get_args(current)[1]
        else:
            return None
        current = _section_or_first(current)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None
