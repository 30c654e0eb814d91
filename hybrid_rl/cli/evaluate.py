"""`hybrid-rl eval RUN_OR_CHECKPOINT [--budgets 0,16,32 | --blind | --set NAME]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hybrid_rl.errors import UserError


def command(
    target: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run folder or one of its checkpoints.")
    ],
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Held-out prompts a mode; default: as in the run.")
    ] = None,
    budgets: Annotated[
        str | None, typer.Option(help="Thinking budgets in tokens, such as 0,16,32,64: accuracy at each.")
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Repeat it with every image and video blanked, side by side.")
    ] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A set of evaluation.sets instead; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure accuracy on held-out prompts in every mode."""
    if sum([budgets is not None, blind, bool(sets)]) > 1:
        raise UserError("give one of --budgets, --blind and --set; each is an evaluation of its own")
    if sets and n is not None:
        raise UserError("--n is for the evaluation proper; a set has its own evaluation.sets.NAME.prompts_per_mode")
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()
    found, table = _measure(target, n, budgets, blind, sets or [])
    if as_json:
        print(json.dumps(found))
    elif table:
        _print(table)
    else:
        from rich.console import Console

        from hybrid_rl.insight.choice_view import choice_rows
        from hybrid_rl.insight.live import before_after_table

        before_after_table({"after": found}, Console(highlight=False, soft_wrap=True))
        if choices := choice_rows({"after": found}):
            _print(choices)


def _measure(
    target: Path, n: int | None, budgets: str | None, blind: bool, sets: list[str]
) -> tuple[dict[str, Any], list[list[str]]]:
    """What was found, and its table; no table for the plain evaluation."""
    from hybrid_rl.insight.blind_view import blind_rows
    from hybrid_rl.insight.budget_view import budget_rows
    from hybrid_rl.insight.budgets import read_budgets
    from hybrid_rl.insight.set_view import set_rows
    from hybrid_rl.saved import evaluate_saved, open_saved
    from hybrid_rl.saved_evaluations import evaluate_blind, evaluate_budgets, evaluate_sets

    limits = read_budgets(budgets) if budgets is not None else []
    saved = open_saved(target)
    if limits:
        found = evaluate_budgets(saved, limits, n)
        return found, budget_rows(found)
    if blind:
        found = evaluate_blind(saved, n)
        return found, blind_rows(found)
    if sets:
        found = evaluate_sets(saved, sets)
        return found, set_rows({"after": found})
    return evaluate_saved(saved, n), []


def _print(table: list[list[str]]) -> None:
    from hybrid_rl.insight.table import aligned
    from hybrid_rl.insight.visible import one_line

    for line in aligned([[cell if not cell.strip() else _kept(cell, one_line(cell)) for cell in row] for row in table]):
        print(line.rstrip())


def _kept(cell: str, shown: str) -> str:
    """Keep the indentation, which `one_line` strips."""
    return " " * (len(cell) - len(cell.lstrip(" "))) + shown
