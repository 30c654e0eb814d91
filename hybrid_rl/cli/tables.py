"""Tables on a terminal. What a model or a file wrote is made harmless before it is shown."""

from __future__ import annotations

import json
from typing import Any


def table(*columns: str) -> Any:
    """An empty table."""
    from rich.table import Table

    return Table(*columns)


def print_table(shown: Any) -> None:
    """Print it, without reading markup in its cells."""
    from rich.console import Console

    Console(highlight=False, markup=False).print(shown)


def one_line(text: str) -> str:
    """Foreign text on one line."""
    from hybrid_rl.insight.visible import one_line as visible_line

    return visible_line(text)


def short(value: Any) -> str:
    """The beginning and the end of foreign text, or of JSON."""
    from hybrid_rl.insight.visible import visible

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return visible(text if len(text) <= 60 else f"{text[:40]} ... {text[-15:]}")


def value_of(text: str) -> Any:
    """JSON where it is, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
