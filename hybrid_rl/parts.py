"""Parts of a model: groups of parameters by the beginning of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def part_of(name: str, parts: Mapping[str, Sequence[str]]) -> str | None:
    """The part that a parameter belongs to: that of the longest matching prefix, or None."""
    found = [(len(prefix), part) for part, prefixes in parts.items() for prefix in prefixes if name.startswith(prefix)]
    return max(found)[1] if found else None
