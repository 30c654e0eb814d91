"""Writes the page and the picture of one run or of several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hybrid_rl.errors import ConfigError, RunFolderError
from hybrid_rl.insight.atomic import write_atomically
from hybrid_rl.insight.report import render_report
from hybrid_rl.studies.side_by_side.page import render
from hybrid_rl.studies.side_by_side.panels import Panel, compared, of_one
from hybrid_rl.studies.side_by_side.picture import draw
from hybrid_rl.studies.side_by_side.runs import read_runs

_NAME = "comparison.html"
_COLUMNS = 4
"""Panels side by side in the picture."""


def write_comparison(paths: Sequence[Path], out: Path | None) -> tuple[Path, Path]:
    """Write an HTML page and, beside it, a PNG under the same name.

    Args:
        out: the page, or a folder for it. None: `report.html` of the run itself, or, for several runs,
            `comparison.html` in the working directory.

    Returns:
        Page and picture.

    Raises:
        UserError: bad runs, or a place that cannot be written to.
    """
    runs = read_runs(paths)
    alone = len(runs) == 1
    target = _target(out, runs[0].run.path / "report.html" if alone else Path(_NAME))
    if alone:
        rows = _in_rows([[panel] for panel in of_one(runs[0].run)])
        html, title = render_report(runs[0].run), runs[0].label
    else:
        rows = _in_rows(list(compared(runs)))
        title = " · ".join(named.label for named in runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
        html = render(runs, title)
    picture = target.with_suffix(".png")
    try:
        write_atomically(target, html)
        if rows:
            write_atomically(picture, draw(rows, title))
    except OSError as error:
        raise RunFolderError(f"{target} cannot be written: {error.strerror}; give another place with --out") from error
    return target, picture


def _in_rows(quantities: Sequence[Sequence[Panel | None]]) -> list[list[Panel | None]]:
    """Several quantities in a row, as long as they fit; the panels of a quantity stay together, mode under mode."""
    width = max((len(panels) for panels in quantities), default=1)
    filled = [[*panels, *[None] * (width - len(panels))] for panels in quantities]
    each = max(1, _COLUMNS // width)
    return [
        [panel for panels in filled[start : start + each] for panel in panels] for start in range(0, len(filled), each)
    ]


def _target(out: Path | None, default: Path) -> Path:
    if out is None:
        return default
    if out.is_dir():
        return out / default.name
    if out.suffix != ".html":
        raise ConfigError(f"--out {out}: the page is HTML; give a name that ends in .html, or a folder that exists")
    if not out.absolute().parent.is_dir() or not os.access(out.absolute().parent, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {out}: {out.absolute().parent} is not a folder you may write to")
    return out
