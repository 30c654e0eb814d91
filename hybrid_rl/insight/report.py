"""`report.html`: one static file that tells what a run did. It opens without a network and runs no scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from hybrid_rl.insight import comparison, curves, formats, palette
from hybrid_rl.insight.atomic import write_atomically
from hybrid_rl.insight.comparison import finite, mapping
from hybrid_rl.insight.evaluation_content import evaluation_content
from hybrid_rl.insight.names import PHASES
from hybrid_rl.insight.part_table import part_rows
from hybrid_rl.insight.phase_table import machine_sentences, phase_table
from hybrid_rl.insight.recorded import RecordedRun, read_run
from hybrid_rl.insight.samples import read_samples
from hybrid_rl.insight.visible import shorten, visible

MAX_CONFIG = 60_000
"""Characters of the shown config."""


def write_report(run_dir: Path) -> Path:
    """Write `report.html` of a run folder, finished, running or interrupted, and return its path.

    Raises:
        RunFolderError: there is no such folder.
    """
    target = run_dir / "report.html"
    write_atomically(target, render_report(read_run(run_dir)))
    return target


def render_report(run: RecordedRun) -> str:
    """The page of a run, of whatever its folder holds."""
    return environment().get_template("report.html.j2").render(_content(run))


def environment(*folders: Path) -> jinja2.Environment:
    """Templates of `folders` and of this one, with everything escaped on its way into a page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        formats.number,
        formats.signed,
        formats.percent,
        formats.points,
        formats.count,
        formats.short_count,
        formats.duration,
    ):
        environment.filters[function.__name__] = function
    environment.filters["mode_variable"] = palette.mode_variable
    environment.filters["phase_variable"] = palette.phase_variable
    return environment


def _harmless(value: object) -> object:
    """Every value on its way into the page: only drawings of our own pass as they are."""
    return value if isinstance(value, Markup) else visible(value)


def _content(run: RecordedRun) -> dict[str, Any]:
    evaluations = curves.evaluations(run)
    before = evaluations[0] if evaluations else (0, {})
    after = evaluations[-1] if len(evaluations) > 1 else (run.last_step, {})
    tables = [
        ("By mode and task", comparison.rows(before[1], after[1])),
        ("By mode and source", comparison.rows(before[1], after[1], "sources")),
    ]
    drawn = [
        (section.title, section.wide, [(chart, Markup(chart.svg)) for chart in section.charts])
        for section in curves.sections(run)
    ]
    return {
        "name": run.path.resolve().name,
        "status": _status(run),
        "facts": _facts(run),
        "places": {mode: place for place, mode in enumerate(run.modes)},
        "before_step": before[0],
        "after_step": after[0],
        "headlines": [row for row in tables[0][1] if not row.name],
        "tables": [(title, rows) for title, rows in tables if any(row.name for row in rows) or title == tables[0][0]],
        "tokens": _tokens(run),
        "phases": _phases(run),
        "work": phase_table(run),
        "machine": machine_sentences(run),
        "sections": drawn,
        "samples": read_samples(run),
        "parts": part_rows(run),
        "warnings": _warnings(run),
        **evaluation_content(run),
        "config": shorten(run.config, MAX_CONFIG),
        "light": palette.variables(dark=False),
        "dark": palette.variables(dark=True),
    }


def _status(run: RecordedRun) -> tuple[str, str]:
    """Kind (`done` or `open`) and text of the run's state."""
    status = run.summary.get("status")
    if status is not None:
        return ("done" if str(status) in ("finished", "done", "ok", "complete", "completed") else "open"), str(status)
    if run.metrics:
        return "open", "running or interrupted"
    return "open", "nothing recorded yet"


def _facts(run: RecordedRun) -> list[tuple[str, str]]:
    """Name and value of what identifies the run; what is unknown is left out."""
    summary = run.summary
    steps = finite(summary.get("steps"))
    seconds = sum(value for _, value in _seconds(run).items())
    stopped = mapping(summary.get("stopped")).get("reason")
    policy = mapping(summary.get("policy"))
    sizes = [formats.short_count(finite(policy.get(name))) for name in ("parameters", "trained_parameters")]
    facts = [
        ("stopped by", str(stopped) if stopped else formats.DASH),
        ("steps", formats.count(steps if steps is not None else run.last_step or None)),
        ("parameters", sizes[0]),
        ("trained", sizes[1] if sizes[1] != sizes[0] else formats.DASH),
        ("time", formats.duration(seconds) if seconds else formats.DASH),
        ("tokens", formats.short_count(sum(entry["rollout"] for entry in _tokens(run)) or None)),
        ("seed", str(summary["seed"]) if "seed" in summary else formats.DASH),
    ]
    return [(name, value) for name, value in facts if value != formats.DASH]


def _warnings(run: RecordedRun) -> list[tuple[str, str]]:
    """Step and sentence of each."""
    given = run.summary.get("warnings")
    entries = [mapping(entry) for entry in given] if isinstance(given, list) else []
    return [(formats.count(finite(entry.get("step"))), str(entry.get("text", ""))) for entry in entries]


def _tokens(run: RecordedRun) -> list[dict[str, Any]]:
    """Tokens of each mode, from the summary or, before there is one, from the steps so far."""
    given = mapping(run.summary.get("tokens"))
    entries = []
    for place, mode in enumerate(run.modes):
        entry: dict[str, Any] = {"mode": mode, "place": place}
        for kind in ("rollout", "update"):
            total = finite(mapping(given.get(mode)).get(kind))
            if total is None:
                total = math.fsum(row.get(f"{kind}_tokens/{mode}", 0.0) for row in run.metrics)
            entry[kind] = max(total, 0.0)
        entries.append(entry)
    largest = max((max(entry["rollout"], entry["update"]) for entry in entries), default=0.0)
    if not largest:
        return []
    return [entry | {"largest": largest} for entry in entries]


def _seconds(run: RecordedRun) -> Mapping[str, float]:
    """Seconds of each phase, those of a training step first and in its order."""
    given = {str(k): v for k, value in mapping(run.summary.get("wall_s")).items() if (v := finite(value)) is not None}
    # A total beside the phases would count everything twice.
    given.pop("total", None)
    if not given:
        for row in run.metrics:
            for key, value in row.items():
                if key.startswith("wall_s/"):
                    phase = key.removeprefix("wall_s/")
                    given[phase] = given.get(phase, 0.0) + value
    order = [*(phase for phase in PHASES if phase in given), *(phase for phase in given if phase not in PHASES)]
    return {phase: given[phase] for phase in order if given[phase] > 0}


def _phases(run: RecordedRun) -> list[dict[str, Any]]:
    seconds = _seconds(run)
    total = sum(seconds.values())
    return [
        {"name": name, "place": place, "seconds": value, "share": value / total}
        for place, (name, value) in enumerate(seconds.items())
    ]
