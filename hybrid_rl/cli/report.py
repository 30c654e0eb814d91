"""`hybrid-rl report RUN... [--out FILE.html]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, finished or not.")],
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file or folder; default: the run's report.html, or comparison.html for several runs."),
    ] = None,
) -> None:
    """Write the report of a run anew, or one page that compares several; a picture of the curves lies beside it."""
    from hybrid_rl.studies.side_by_side.write import write_comparison

    page, picture = write_comparison(runs, out)
    print(f"page: {page}")
    print(f"picture: {picture}")
