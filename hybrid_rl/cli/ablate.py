"""`hybrid-rl ablate CONFIG key=v1,v2,v3 [key2=...] [a.b=value ...] --seeds N`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    config: Annotated[Path, typer.Argument(help="YAML config, such as configs/grpo_mixed.yaml.")],
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=V1,V2,...",
            help="Lists to compare, as a grid: section.key=v1,v2. A single value is for all arms.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds an arm, from run.seed on; intervals need two or more.")] = 3,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; default: as many as cores and GPUs allow.")
    ] = None,
    equal: Annotated[
        Literal["steps", "tokens"],
        typer.Option(help="What the arms have the same of: run.steps, or the update tokens of run.max_update_tokens."),
    ] = "steps",
) -> None:
    """Compare settings: the same seeds in every arm, one table. Interrupted, the same command goes on."""
    from hybrid_rl.studies.design import make_design

    design = make_design(config, assignments or [], seeds, equal)
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()  # before torch is imported, which reads its threading settings once
    from rich.console import Console
    from rich.markdown import Markdown

    from hybrid_rl.studies.ablation import ablate
    from hybrid_rl.studies.tuning import open_pool

    console = Console(highlight=False, soft_wrap=True)
    ablate(design, open_pool, jobs, console)
    text = (design.folder / "table.md").read_text(encoding="utf-8")
    console.print(Markdown(text) if console.is_terminal else text, markup=False)
    console.print(f"table: {design.folder / 'table.md'}", markup=False)
    console.print(f"page: {design.folder / 'ablation.html'}", markup=False)
