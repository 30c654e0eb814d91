"""`hybrid-rl export RUN_OR_CHECKPOINT FOLDER [--adapter-only]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    target: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run folder or one of its checkpoints.")
    ],
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist yet, or be empty.")],
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Write the LoRA adapter alone instead of merging it.")
    ] = False,
) -> None:
    """Write a trained policy as a model folder."""
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()
    from hybrid_rl.exporting import export
    from hybrid_rl.saved import open_saved

    found = export(open_saved(target), folder, adapter_only=adapter_only)
    print(f"{folder}: {found.what}")
    if found.note is not None:
        print(f"note: {found.note}")
