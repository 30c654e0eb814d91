"""The report's sections on evaluations beyond the plain one: sets, blind, thinking budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hybrid_rl.insight.blind_view import blind_rows
from hybrid_rl.insight.budget_view import budget_rows, budget_svg
from hybrid_rl.insight.choice_view import choice_rows
from hybrid_rl.insight.comparison import mapping
from hybrid_rl.insight.recorded import RecordedRun
from hybrid_rl.insight.set_view import set_rows

Table = tuple[str, str, list[list[str]], Markup | None, str]


def evaluation_content(run: RecordedRun) -> dict[str, Any]:
    """`evaluation_tables`: id, title, head and rows, drawing and note of each section that there is something for."""
    found: list[Table] = []
    choices = choice_rows(run.summary.get("eval"))
    if choices:
        note = (
            "Thinks: share of responses with a thought. The better mode of a prompt is the more accurate one of those "
            "that are assigned, of equal ones the shorter."
        )
        found.append(("choices", "What the model chooses", choices, None, note))
    sets = set_rows(run.summary.get("eval_sets"))
    if sets:
        note = "mean@n: mean accuracy of n responses a prompt. pass@k: chance that one of k is right, estimated from n."
        found.append(("sets", "Evaluation sets", sets, None, note))
    blind = _blind(run)
    if len(blind) > 1:
        note = (
            "The same prompts and seeds, with every image and video blanked (same size, mean grey). The difference, in "
        )
        found.append(("blind", "Sighted and blind", blind, None, note + "points, is what seeing them adds."))
    curve = mapping(_read(run.path / "budgets.json"))
    svg = budget_svg(curve, {mode: place for place, mode in enumerate(run.modes)})
    if svg is not None:
        note = "Across: tokens that a thought may have before it is closed by force; bands are 95 % intervals (Wilson)."
        found.append(("budgets", "Accuracy at thinking budgets", budget_rows(_points(curve)), Markup(svg), note))
    return {"evaluation_tables": found}


def _blind(run: RecordedRun) -> list[list[str]]:
    """After the run, as `eval --blind` measured it, else as the run itself did."""
    measured = mapping(_read(run.path / "blind.json"))
    if measured:
        return blind_rows(measured)
    plain, blind = mapping(run.summary.get("eval")), mapping(run.summary.get("eval_blind"))
    last = next((when for when in ("after", "before") if when in blind), "")
    return blind_rows({"sighted": plain.get(last), "blind": blind.get(last)})


def _points(curve: Any) -> dict[str, list[Any]]:
    """Only what has the form of a curve; the file may hold anything."""
    return {str(mode): points for mode, points in curve.items() if isinstance(points, list)}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return None
