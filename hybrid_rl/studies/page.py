"""`ablation.html`: tables and curves of an ablation in one static file. It needs no network and runs no scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hybrid_rl.config import dump_config
from hybrid_rl.insight import palette
from hybrid_rl.insight.report import MAX_CONFIG, environment
from hybrid_rl.insight.visible import shorten
from hybrid_rl.studies.chart import Curves, steps_chart, tokens_chart
from hybrid_rl.studies.design import Design
from hybrid_rl.studies.training import MEASURES, TrainingCurves


def render(
    design: Design,
    rows: Sequence[Mapping[str, Any]],
    curves: Curves,
    training: TrainingCurves,
    notes: Sequence[str],
) -> str:
    """The page of a table (`table.json`), which must not be empty."""
    modes = list(dict.fromkeys(mode for row in rows for mode in row["accuracy"]))
    content = {
        "name": design.folder.name,
        "facts": [
            ("arms", str(len(design.arms))),
            ("seeds", str(len(design.seeds))),
            ("equal", design.equal),
            ("config", design.base.name),
        ],
        "finished": sum(len(row["seeds"]) for row in rows),
        "planned": len(design.arms) * len(design.seeds),
        "modes": modes,
        "mode_places": {mode: place for place, mode in enumerate(modes)},
        "rows": list(enumerate(rows)),
        "tasks": list(dict.fromkeys(task for row in rows for task in row["tasks"])),
        "values": {row["name"]: [(key, json.dumps(value)) for key, value in row["arm"].items()] for row in rows},
        "notes": notes,
        "most_tokens": max(max(row["tokens"]["update"], row["tokens"]["rollout"]) for row in rows) or 1,
        # Only drawings of our own are markup; no text from outside is in them.
        "charts": [(mode, Markup(tokens_chart(mode, rows, curves))) for mode in modes],
        "training": [
            (measure, mode, Markup(steps_chart(measure, mode, rows, training)))
            for measure in MEASURES
            for mode in modes
            if any(mode in training.get(row["name"], {}).get(measure, {}) for row in rows)
        ],
        "config": shorten(dump_config(design.base), MAX_CONFIG),
        "light": palette.variables(dark=False),
        "dark": palette.variables(dark=True),
    }
    return environment(Path(__file__).parent).get_template("ablation.html.j2").render(content)
