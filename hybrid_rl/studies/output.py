"""Writes what an ablation has found into its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hybrid_rl.insight.atomic import write_atomically
from hybrid_rl.studies.chart import draw
from hybrid_rl.studies.curves import as_json, find_reached, make_curves, sentence
from hybrid_rl.studies.design import Design, Trial
from hybrid_rl.studies.page import render
from hybrid_rl.studies.results import read_outcomes
from hybrid_rl.studies.table import Row, make_table, to_csv, to_markdown
from hybrid_rl.studies.training import training_curves


def write_results(design: Design, trials: Sequence[Trial]) -> None:
    """`table.json`, `table.csv`, `table.md`, `curves.json`, `ablation.png`, `ablation.html`, of what has finished."""
    outcomes = read_outcomes(trials)
    rows = make_table(design.arms, outcomes)
    if not rows:
        return
    curves = make_curves(outcomes)
    training = training_curves({name: [run.training for run in runs] for name, runs in outcomes.items() if runs})
    kinds = list(design.base.modes.kinds)
    # `modes.long_ratio` is the share of the second of two kinds.
    reached = find_reached(design.arms, curves, kinds[1]) if len(kinds) == 2 else []
    notes = [*_notes(design, trials, rows), *map(sentence, reached)]
    folder = design.folder
    write_atomically(folder / "table.json", json.dumps(rows, indent=2) + "\n")
    write_atomically(folder / "table.csv", to_csv(rows))
    write_atomically(folder / "table.md", to_markdown(rows) + "".join(f"\n{note}\n" for note in notes))
    write_atomically(folder / "curves.json", json.dumps(as_json(curves, reached, training), indent=2) + "\n")
    draw(rows, curves, folder / "ablation.png")
    write_atomically(folder / "ablation.html", render(design, rows, curves, training, notes))


def _notes(design: Design, trials: Sequence[Trial], rows: Sequence[Row]) -> list[str]:
    """Sentences without which the table would say too much."""
    done = sum(len(row["seeds"]) for row in rows)
    notes = []
    if done < len(trials):
        notes.append(f"Unfinished: {done} of {len(trials)} runs are done.")
    if any(len(row["seeds"]) == 1 for row in rows):
        notes.append("With one seed there is no interval: nothing is known of how much seeds differ.")
    if design.equal == "tokens":
        notes += _short_of_budget(design, rows)
    return notes


def _short_of_budget(design: Design, rows: Sequence[Row]) -> list[str]:
    limits = {arm.name: config.run.max_update_tokens for arm, config in zip(design.arms, design.configs, strict=True)}
    notes = []
    for row in rows:
        limit, used = limits[row["name"]], row["tokens"]["update"]
        if limit is not None and used < limit:
            notes.append(f"{row['name']} ended at run.steps, with {used:,.0f} of {limit:,} tokens; raise run.steps.")
    return notes
