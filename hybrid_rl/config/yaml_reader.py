"""YAML into plain values, remembering the line of every key and refusing duplicate ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hybrid_rl.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """Values of a YAML file and where each key stands: `path:line`, or `command line` for overrides."""

    values: dict[str, Any]
    places: dict[KeyPath, str]
    path: str

    def place(self, key: KeyPath) -> str:
        """Where the key, or the nearest key above it that the file has, was written."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return self.path


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as text; people who train models mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?([eE][-+]?\d+)$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Document:
    """Read a config file.

    Raises:
        ConfigError: missing, binary, empty or malformed file, or a key given twice; with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no config file {path}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError(f"config file {path} cannot be read: {reason}") from error
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from error
    if root is None:
        raise ConfigError(f"config file {path} is empty; start from configs/grpo_mixed.yaml")
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}:1: a config is a mapping of sections, such as `run:` and `data:`")
    places: dict[KeyPath, str] = {}
    values = _convert(root, (), str(path), places, frozenset())
    return Document(values, places, str(path))


def parse_scalar(text: str, name: str) -> Any:
    """The value of an override, read as YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: '{text}' is not a YAML value; quote it") from error


def _convert(node: yaml.Node, key: KeyPath, path: str, places: dict[KeyPath, str], above: frozenset[int]) -> Any:
    """Build the value of a node; `above` holds the nodes on the way down, to refuse an alias to one of them."""
    if id(node) in above:
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: an alias refers to a node that contains it")
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{path}:{line}: a key must be a word")
            name = key_node.value
            if name in result:
                first = places[(*key, name)].rpartition(":")[2]
                dotted = ".".join(map(str, (*key, name)))
                raise ConfigError(f"{path}:{line}: '{dotted}' is given twice, first in line {first}; remove one")
            places[(*key, name)] = f"{path}:{line}"
            result[name] = _convert(value_node, (*key, name), path, places, above)
        return result
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            places[(*key, index)] = f"{path}:{item.start_mark.line + 1}"
            items.append(_convert(item, (*key, index), path, places, above))
        return items
    try:
        return _Loader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: '{node.value}' cannot be read: {error}") from error
