"""`hybrid-rl train CONFIG [a.b=value ...] [--plan-only]` and `hybrid-rl train --resume RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hybrid_rl.errors import UserError


def command(
    config: Annotated[Path | None, typer.Argument(help="YAML config, such as configs/grpo_mixed.yaml.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to it: section.key=value.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder of an interrupted run, to go on with.")] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Check everything, print the plan and stop. Needs no weights.")
    ] = False,
) -> None:
    """Train a policy in all its modes with GRPO."""
    if (config is None) == (resume is None):
        raise UserError(
            "name either a config to train, or an interrupted run with --resume (which keeps its config as it was)"
        )
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()  # before torch is imported, which reads its threading settings once
    from rich.console import Console

    from hybrid_rl.insight.choice_view import choice_rows
    from hybrid_rl.insight.live import before_after_table
    from hybrid_rl.insight.plain import encodable
    from hybrid_rl.insight.set_view import set_rows
    from hybrid_rl.insight.table import aligned

    if plan_only:
        _print_plan(config, overrides or [], resume)
        return
    if resume is not None:
        from hybrid_rl.train import resume as go_on

        summary, folder = go_on(resume), resume
    else:
        from hybrid_rl.build import with_run_dir
        from hybrid_rl.config import load_config
        from hybrid_rl.train import run

        resolved = with_run_dir(load_config(config or "", overrides or []))
        summary, folder = run(resolved), Path(resolved.run.dir or "")
    console = Console(highlight=False, soft_wrap=True)
    if summary["eval"]:
        before_after_table(summary["eval"], console)
    for table in (choice_rows(summary["eval"]), set_rows(summary.get("eval_sets"))):
        for line in aligned(table) if table else ():
            console.print(encodable(line.rstrip(), console.encoding), markup=False)
    if "stopped" in summary:
        console.print(f"stopped after step {summary['steps']}: {summary['stopped']['reason']}", markup=False)
    console.print(f"report: {folder / 'report.html'}", markup=False)


def _print_plan(config: Path | None, overrides: list[str], resume: Path | None) -> None:
    from hybrid_rl.build import plan_run
    from hybrid_rl.config import load_config
    from hybrid_rl.run_folder import RunFolder

    if resume is not None:
        folder = RunFolder.existing(resume)
        plan = plan_run(folder.config(), folder)
    else:
        plan = plan_run(load_config(config or "", overrides))
    for topic, sentence in plan:
        print(f"{topic:<12} {sentence}")
