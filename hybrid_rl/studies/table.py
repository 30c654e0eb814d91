"""`table.json`, and the same as Markdown and CSV: accuracy, tokens and paired differences of the arms."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybrid_rl.insight.formats import DASH
from hybrid_rl.studies.grid import Arm
from hybrid_rl.studies.inference import Interval, paired_bootstrap, student
from hybrid_rl.studies.results import Outcome

Row = dict[str, Any]
RATIO = "modes.long_ratio"


def make_table(arms: Sequence[Arm], outcomes: Mapping[str, Sequence[Outcome]]) -> list[Row]:
    """One row an arm that has a finished run, in the order of the grid.

    Returns:
        `name`, `arm`, `seeds`, `before`, `accuracy`, `tasks`, `tokens`, `versus`, as docs/ablations.md says; intervals
        are None where there are fewer than two seeds.
    """
    done = [arm for arm in arms if outcomes.get(arm.name)]
    rows = [_row(arm, outcomes[arm.name]) for arm in done]
    by_name = {row["name"]: row for row in rows}
    for place, arm in enumerate(done):
        reference = long_only(arm, done)
        if reference is not None:
            by_name[arm.name]["tokens"]["update_percent_of_long_only"] = _percent(
                outcomes[arm.name], outcomes[reference.name]
            )
        for other in done[place + 1 :]:
            forth = _versus(outcomes[arm.name], outcomes[other.name])
            by_name[arm.name]["versus"][other.name] = forth
            by_name[other.name]["versus"][arm.name] = {mode: _turned(entry) for mode, entry in forth.items()}
    for row in rows:
        row["versus"] = {name: row["versus"][name] for name in by_name if name in row["versus"]}
    return rows


def long_only(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm that thinks in every prompt and is otherwise set as this one."""
    wanted = {**arm.values, RATIO: 1}
    # A flag is no ratio, though True equals 1.
    fits = (other for other in arms if other.values == wanted and not isinstance(other.values[RATIO], bool))
    return next(fits, None) if RATIO in arm.values else None


def _row(arm: Arm, runs: Sequence[Outcome]) -> Row:
    modes = list(dict.fromkeys(mode for run in runs for mode in run.after))
    tasks = dict.fromkeys(task for run in runs for mode in modes for task in run.after.get(mode, {}).get("tasks", {}))
    return {
        "name": arm.name,
        "arm": dict(arm.values),
        "seeds": [run.seed for run in runs],
        "before": {
            mode: _mean([run.before[mode]["accuracy"] for run in runs])
            for mode in modes
            if all(mode in run.before for run in runs)
        },
        "accuracy": {
            mode: _figures(values) | {"per_seed": values}
            for mode in modes
            if (values := [run.after[mode]["accuracy"] for run in runs if mode in run.after])
        },
        "tasks": {task: _task(runs, task, modes) for task in tasks},
        "tokens": {kind: _mean([run.tokens[kind] for run in runs]) for kind in ("rollout", "update")}
        | {"update_percent_of_long_only": None},
        "versus": {},
    }


def _task(runs: Sequence[Outcome], task: str, modes: Sequence[str]) -> dict[str, Any]:
    found = {}
    for mode in modes:
        splits = [run.after.get(mode, {}).get("tasks", {}) for run in runs]
        values = [split[task]["accuracy"] for split in splits if task in split]
        if values:
            found[mode] = _figures(values)
    return found


def _figures(values: Sequence[float]) -> dict[str, Any]:
    low, high = student(values) or (None, None)
    return {"mean": _mean(values), "low": low, "high": high}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(runs: Sequence[Outcome], reference: Sequence[Outcome]) -> float | None:
    """Update tokens against those of the reference, over the seeds that both have finished."""
    ours = {run.seed: run.tokens["update"] for run in runs}
    theirs = {run.seed: run.tokens["update"] for run in reference}
    shared = [seed for seed in ours if seed in theirs]
    total = sum(theirs[seed] for seed in shared)
    return 100 * sum(ours[seed] for seed in shared) / total if total else None


def _versus(runs: Sequence[Outcome], others: Sequence[Outcome]) -> dict[str, Any]:
    """Accuracy minus that of the other arm, by mode: mean over shared seeds of the mean over shared items."""
    theirs = {run.seed: run for run in others}
    modes = dict.fromkeys(mode for run in runs for mode in run.items)
    found = {}
    for mode in modes:
        pairs = [(run.items.get(mode, {}), theirs[run.seed].items.get(mode, {})) for run in runs if run.seed in theirs]
        items = [np.array([a[key] - b[key] for key in a if key in b]) for a, b in pairs]
        items = [differences for differences in items if len(differences)]
        if items:
            found[mode] = _difference(
                float(np.mean([differences.mean() for differences in items])), paired_bootstrap(items)
            )
    return found


def _difference(value: float, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"difference": value, "low": low, "high": high}


def _turned(entry: Mapping[str, float | None]) -> dict[str, float | None]:
    """The difference the other way round."""
    value, low, high = (None if entry[key] is None else -entry[key] for key in ("difference", "high", "low"))  # type: ignore[operator]
    return {"difference": value, "low": low, "high": high}


def to_csv(rows: Sequence[Row]) -> str:
    """One line an arm, mode and task; the task is empty for the whole mode."""
    keys = list(rows[0]["arm"]) if rows else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    figures = ["before", "accuracy", "low", "high"]
    counts = ["rollout_tokens", "update_tokens", "update_percent_of_long_only"]
    writer.writerow(["name", *keys, "mode", "task", "seeds", *figures, *counts])
    for row in rows:
        tokens = [row["tokens"][kind] for kind in ("rollout", "update", "update_percent_of_long_only")]
        arm = [row["arm"][key] for key in keys]
        for mode, whole in row["accuracy"].items():
            entries = [("", whole), *((task, split[mode]) for task, split in row["tasks"].items() if mode in split)]
            for task, entry in entries:
                before = None if task else row["before"].get(mode)
                interval = [entry["mean"], entry["low"], entry["high"]]
                writer.writerow([row["name"], *arm, mode, task, len(row["seeds"]), before, *interval, *tokens])
    return buffer.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """Two tables: the arms, and their differences."""
    modes = list(dict.fromkeys(mode for row in rows for mode in row["accuracy"]))
    tasks = list(dict.fromkeys(task for row in rows for task in row["tasks"]))
    heads = [*modes, *(f"{task} / {mode}" for task in tasks for mode in modes)]
    lines = [
        _line(["arm", "seeds", *heads, "rollout tokens", "update tokens", "% of long only"]),
        _line(["---"] + ["---:"] * (len(heads) + 4)),
    ]
    for row in rows:
        cells = [_accuracy(row["accuracy"].get(mode)) for mode in modes]
        cells += [_accuracy(row["tasks"].get(task, {}).get(mode)) for task in tasks for mode in modes]
        tokens = row["tokens"]
        percent = tokens["update_percent_of_long_only"]
        counts = [f"{tokens['rollout']:,.0f}", f"{tokens['update']:,.0f}"]
        cells += [*counts, DASH if percent is None else f"{percent:.1f}"]
        lines.append(_line([f"`{row['name']}`", str(len(row["seeds"])), *cells]))
    lines += ["", "Accuracy in %, mean over seeds", ""]
    if any(len(row["seeds"]) < 2 for row in rows):
        lines[-2] += "; an arm with one seed has no interval"
    else:
        lines[-2] += " with Student's 95 % interval"
    lines[-2] += ". Differences in points, with the 95 % interval of the paired bootstrap over seeds and items."
    lines += [_line(["difference", *modes]), _line(["---"] + ["---:"] * len(modes))]
    for row in rows:
        for name, entry in row["versus"].items():
            lines.append(_line([f"`{row['name']}` − `{name}`", *(_points(entry.get(mode)) for mode in modes)]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _accuracy(entry: Mapping[str, float | None] | None) -> str:
    if entry is None or entry["mean"] is None:
        return DASH
    text = f"{100 * entry['mean']:.1f}"
    if entry["low"] is None or entry["high"] is None:
        return text
    return f"{text} ({100 * entry['low']:.1f} … {100 * entry['high']:.1f})"


def _points(entry: Mapping[str, float | None] | None) -> str:
    if entry is None or entry["difference"] is None:
        return DASH
    text = f"{100 * entry['difference']:+.1f}"
    if entry["low"] is None or entry["high"] is None:
        return text
    return f"{text} ({100 * entry['low']:+.1f} … {100 * entry['high']:+.1f})"
