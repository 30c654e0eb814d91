"""`hybrid-rl eval RUN_OR_CHECKPOINT`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    target: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run folder or one of its checkpoints.")
    ],
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Held-out prompts a mode; default: as in the run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure accuracy on held-out prompts in every mode."""
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()
    from rich.console import Console

    from hybrid_rl.insight.live import before_after_table
    from hybrid_rl.saved import evaluate_saved, open_saved

    found = evaluate_saved(open_saved(target), n)
    if as_json:
        print(json.dumps(found))
    else:
        before_after_table({"after": found}, Console(highlight=False, soft_wrap=True))
