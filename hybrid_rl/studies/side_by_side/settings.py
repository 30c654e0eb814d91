"""The keys in which the configs of runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from hybrid_rl.insight.visible import shorten

MAX_KEYS = 200
"""Differing keys that a page shows; configs of two different projects differ in all of theirs."""
MAX_VALUE = 120
"""Characters of a shown value."""
_PLACES = frozenset({"run.dir", "run.live"})
"""Where a run writes and how it shows itself: no settings of the training."""


def differing_settings(configs: Sequence[str]) -> list[tuple[str, list[str | None]]]:
    """Keys that not all configs have with the same value, each with its value in every config.

    Args:
        configs: YAML texts, as `config.yaml` of a run; one that cannot be read has no keys.

    Returns:
        Dotted keys in the order of the configs; None stands for a config without the key, as an older one may be.
    """
    found = [dict(_flat(_read(text))) for text in configs]
    keys = dict.fromkeys(key for settings in found for key in settings)
    differing = []
    for key in keys:
        values = [settings.get(key) for settings in found]
        if key not in _PLACES and len(set(values)) > 1:
            differing.append((key, [None if value is None else shorten(value, MAX_VALUE) for value in values]))
    return differing[:MAX_KEYS]


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and their values as YAML; lists and empty sections are values."""
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, _inline(value)


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.strip().removesuffix("...").strip()
