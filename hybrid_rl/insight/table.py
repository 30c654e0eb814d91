"""The before/after table that ends a run on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hybrid_rl.insight import formats
from hybrid_rl.insight.comparison import Row, rows
from hybrid_rl.insight.plain import encodable
from hybrid_rl.insight.visible import one_line

if TYPE_CHECKING:
    from rich.console import Console

_HEADS = ("mode / task", "n", "before", "after", "difference", "95 % interval", "tokens before", "after")


def _cells(row: Row) -> list[str]:
    interval = row.difference_interval
    return [
        f"  {one_line(row.name)}" if row.name else one_line(row.mode),
        formats.count(row.after.n or row.before.n),
        formats.percent(row.before.accuracy),
        formats.percent(row.after.accuracy),
        formats.points(row.difference),
        f"{formats.points(interval[0])} … {formats.points(interval[1])}" if interval else formats.DASH,
        formats.number(row.before.tokens),
        formats.number(row.after.tokens),
    ]


def before_after_table(summary_eval: Mapping[str, Any], console: Console) -> None:
    """Print accuracy and mean tokens before and after, for each mode and task: a rich table or aligned plain text.

    Args:
        summary_eval: `{"before": {mode: {...}}, "after": {...}}` of `summary.json`; either may be missing.
    """
    found = rows(summary_eval.get("before"), summary_eval.get("after"))
    if not found:
        return
    if console.is_terminal:
        _print_rich(found, console)
        return
    table = [_cells(row) for row in found]
    for line in aligned([list(_HEADS), *table]):
        text = encodable(line, console.encoding)
        console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]


def _print_rich(found: Sequence[Row], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for place, head in enumerate(_HEADS):
        table.add_column(head, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in found:
        style = "" if row.name else "bold"
        cells = [Text(encodable(cell, console.encoding), style=style) for cell in _cells(row)]
        cells[4].stylize({"up": "green", "down": "red"}.get(row.verdict, ""))
        cells[5].stylize("dim")
        table.add_row(*cells)
    console.print(table)
