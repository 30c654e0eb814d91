"""`key=v1,v2,v3` from the command line -> the arms of an ablation."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybrid_rl.config.yaml_reader import parse_scalar
from hybrid_rl.errors import ConfigError

_PLACE = "command line"
_PAIRS = {"]": "[", "}": "{"}
_GIVEN_OTHERWISE = {
    "run.dir": "it names the folder of the whole ablation",
    "run.seed": "--seeds gives the seeds, from run.seed on",
    "run.live": "the ablation has its own view",
    "warmup.cache": "the arms of a seed share its warm-up",
}
_MAX_NAME = 80
"""Characters of an arm's name, which is also that of its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One point of the grid.

    Attributes:
        name: short and unique, fit for a folder.
        values: what each swept key is set to.
        overrides: the same as text, `a.b=value`.
    """

    name: str
    values: Mapping[str, Any]
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is swept, and what is set for all arms.

    Attributes:
        lists: the texts of the values of each swept key, in order.
        overrides: `a.b=value`, for all arms.
    """

    lists: Mapping[str, tuple[str, ...]]
    overrides: tuple[str, ...]

    def arms(self) -> list[Arm]:
        """Every combination, the last key changing fastest."""
        short = _short_names(list(self.lists))
        arms: list[Arm] = []
        taken: set[str] = set()
        for texts in itertools.product(*self.lists.values()):
            pairs = list(zip(self.lists, texts, strict=True))
            name = _free(_folder_name(",".join(f"{short[key]}={text}" for key, text in pairs)), taken)
            taken.add(name.lower())  # folders of some file systems do not know capitals
            values = {key: parse_scalar(text, f"{_PLACE}: {key}") for key, text in pairs}
            arms.append(Arm(name=name, values=values, overrides=tuple(f"{key}={text}" for key, text in pairs)))
        return arms


def read_grid(assignments: Sequence[str]) -> Grid:
    """Tell lists from single values.

    Args:
        assignments: `key=v1,v2,...` is swept, `key=value` set for all arms. A comma inside brackets, braces or quotes
            belongs to a value.

    Raises:
        ConfigError: no list at all, an empty or repeated value, a key given twice or given by other means.
    """
    lists: dict[str, tuple[str, ...]] = {}
    overrides: dict[str, str] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        key = key.strip()
        if not separator or not all(key.split(".")):
            raise ConfigError(f"{_PLACE}: '{assignment}' is neither a list nor an override; write section.key=v1,v2")
        if key in lists or key in overrides:
            raise ConfigError(f"{_PLACE}: {key} is given twice; give each key once")
        if not text.strip() or text.strip() == "[]":
            raise ConfigError(f"{_PLACE}: {key} has an empty list of values; write {key}=v1,v2")
        values = tuple(split_values(text, key))
        if len(values) > 1:
            _check_list(key, values)
            lists[key] = values
        else:
            overrides[key] = f"{key}={text}"
    for outer, inner in itertools.permutations([*lists, *overrides], 2):
        if inner.startswith(f"{outer}.") and (outer in lists or inner in lists):
            raise ConfigError(f"{_PLACE}: {inner} lies inside {outer}, which is given too; give one of them")
    if not lists:
        raise ConfigError(f"{_PLACE}: no key has a list of values to compare; write one as section.key=v1,v2")
    return Grid(lists=lists, overrides=tuple(overrides.values()))


def split_values(text: str, key: str) -> Iterator[str]:
    """The values between the commas that stand outside of brackets, braces and quotes."""
    open_brackets: list[str] = []
    quote, start = "", 0
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'" and (not text[start:place].strip() or open_brackets):
            quote = sign
        elif sign in "[{":
            open_brackets.append(sign)
        elif sign in "]}":
            if not open_brackets or open_brackets.pop() != _PAIRS[sign]:
                raise ConfigError(f"{_PLACE}: {key}: '{sign}' closes nothing in '{text}'")
        elif sign == "," and not open_brackets:
            yield text[start:place].strip()
            start = place + 1
    if quote or open_brackets:
        raise ConfigError(f"{_PLACE}: {key}: '{quote or open_brackets[-1]}' is not closed in '{text}'")
    yield text[start:].strip()


def _check_list(key: str, values: Sequence[str]) -> None:
    if key in _GIVEN_OTHERWISE:
        raise ConfigError(f"{_PLACE}: {key} cannot be swept: {_GIVEN_OTHERWISE[key]}")
    if not all(values):
        raise ConfigError(f"{_PLACE}: {key} has an empty value between its commas; write null if that is meant")
    seen: list[Any] = []
    for text in values:
        value = parse_scalar(text, f"{_PLACE}: {key}")
        # True equals 1 in Python; as settings they differ.
        if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in seen):
            raise ConfigError(f"{_PLACE}: {key} has the value {text} twice; give each once")
        seen.append(value)


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last words of each key, as many as tell them all apart."""
    names = {}
    for key in keys:
        words = key.split(".")
        tails = (".".join(words[-count:]) for count in range(1, len(words) + 1))
        names[key] = next(
            tail
            for tail in tails
            if tail == key or not any(other.endswith(f".{tail}") for other in keys if other != key)
        )
    return names


def _folder_name(text: str) -> str:
    """Only signs that every shell and file system takes as they are."""
    return re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9.,=+_-]", "_", text)).strip("_.")[:_MAX_NAME]


def _free(name: str, taken: set[str]) -> str:
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate.lower() not in taken)
