"""A replay as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hybrid_rl.insight import formats
from hybrid_rl.insight.plain import encodable
from hybrid_rl.insight.table import aligned
from hybrid_rl.insight.visible import one_line
from hybrid_rl.studies.replay import ModeReplay

if TYPE_CHECKING:
    from rich.console import Console


def print_replay(found: Sequence[ModeReplay], console: Console) -> None:
    """Print each mode, as it was and as it would have been."""
    table = [["", "recorded", "replayed"]]
    for mode in found:
        was, would = mode.recorded, mode.replayed
        table += [
            [f"{one_line(mode.mode)}, {mode.responses:,} responses", "", ""],
            ["  mean reward", formats.number(was.reward), formats.number(would.reward)],
            ["  mean |advantage| of a trained token", formats.number(was.mean_size), formats.number(would.mean_size)],
            ["  groups with a signal", formats.percent(was.with_signal), formats.percent(would.with_signal)],
            ["  share of the gradient", formats.percent(was.gradient_share), formats.percent(would.gradient_share)],
        ]
        for part in dict.fromkeys([*was.parts, *would.parts]):
            cells = [formats.number(side.parts.get(part)) for side in (was, would)]
            table.append([f"  part {one_line(part)}", *cells])
    lines = aligned(table)
    for mode in found:
        correlation = formats.DASH if mode.correlation is None else f"{mode.correlation:.3f}"
        lines.append(
            f"{one_line(mode.mode)}: advantages correlate by {correlation}, {mode.turned:.1%} of the responses change "
            f"sides, the largest difference is {formats.number(mode.largest_difference)}"
        )
    for line in lines:
        console.print(encodable(line, console.encoding), markup=False, highlight=False, emoji=False, soft_wrap=True)
