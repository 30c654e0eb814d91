"""Which curves the report shows, in what order, and the data of each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hybrid_rl.insight import charts, formats, palette
from hybrid_rl.insight.comparison import Result, mapping, rows
from hybrid_rl.insight.names import MODE_METRICS, PHASES, RUN_METRICS
from hybrid_rl.insight.recorded import Metrics, RecordedRun

MAX_SPLIT_CHARTS = 12
"""Charts of single tasks or parts; a run with a hundred tasks must not make a report of a hundred charts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """Legend entry: whose curve, in what colour, and where it stands."""

    label: str
    colour: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A drawn chart with what the page writes around it."""

    title: str
    note: str
    latest: list[Latest]
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Charts under one heading. `wide`: two of them stand side by side, not three."""

    title: str
    charts: list[Chart]
    wide: bool = False


def _column(metrics: Sequence[Metrics], key: str) -> tuple[list[float], list[float]]:
    pairs = [(row["step"], row[key]) for row in metrics if key in row]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _recent(values: Sequence[float]) -> float:
    tail = values[-10:]
    return sum(tail) / len(tail)


def _mode_chart(
    run: RecordedRun,
    prefix: str,
    title: str,
    note: str,
    *,
    share: bool = False,
    full_scale: bool = False,
    cumulative: bool = False,
    wide: bool = False,
) -> Chart | None:
    """Chart of the metric `prefix/MODE` of every mode that has it; None where no mode has."""
    write: Callable[[float], str] = formats.short_count if cumulative else formats.percent if share else formats.number
    lines, latest = [], []
    for place, mode in enumerate(run.modes):
        steps, values = _column(run.metrics, f"{prefix}/{mode}")
        if not values:
            continue
        if cumulative:
            values = list(itertools.accumulate(values))
        lines.append(charts.Line(place=place, steps=steps, values=values, noisy=not cumulative))
        shown = values[-1] if cumulative else _recent(values)
        latest.append(Latest(label=mode, colour=palette.mode_variable(place), value=write(shown)))
    if not lines:
        return None
    svg = charts.line_chart(lines, share=share, full_scale=full_scale, wide=wide)
    return Chart(title=title, note=note, latest=latest, svg=svg)


def _run_chart(run: RecordedRun, key: str, title: str, wide: bool = False) -> Chart | None:
    steps, values = _column(run.metrics, key)
    if not values:
        return None
    latest = [Latest(label="run", colour="--chart-ink", value=formats.number(_recent(values)))]
    svg = charts.line_chart([charts.Line(place=None, steps=steps, values=values)], wide=wide)
    return Chart(title=title, note=RUN_METRICS[key], latest=latest, svg=svg)


def evaluations(run: RecordedRun) -> list[tuple[int, dict[str, object]]]:
    """Every evaluation of the run with its step: before (0), in between, after."""
    return _with_ends(run, run.evals, "eval")


def _with_ends(run: RecordedRun, between: Sequence[tuple[int, Any]], kind: str) -> list[tuple[int, dict[str, Any]]]:
    ends = run.summary.get(kind)
    found = dict(between)
    if isinstance(ends, dict):
        for name, step in (("before", 0), ("after", max(run.last_step, 1, *found))):
            if isinstance(ends.get(name), dict):
                found[step] = ends[name]
    return sorted(found.items())


def _evaluation_chart(run: RecordedRun) -> Chart | None:
    note = "share of right answers on the evaluation split, with 95 % intervals; step 0 is before training"
    return _accuracy_chart(run, evaluations(run), "Evaluation accuracy", note)


def _set_charts(run: RecordedRun) -> list[Chart | None]:
    """Mean@n of every named set. Responses to one prompt are no independent trials, so intervals count prompts."""
    by_set: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for step, sets in _with_ends(run, run.set_evals, "eval_sets"):
        for name, modes in sets.items():
            counted = {m: {**mapping(f), "n": mapping(f).get("prompts")} for m, f in mapping(modes).items()}
            by_set.setdefault(str(name), []).append((step, counted))
    note = "mean accuracy of its responses, with 95 % intervals over its prompts; step 0 is before training"
    return [_accuracy_chart(run, found, name, note) for name, found in list(by_set.items())[:MAX_SPLIT_CHARTS]]


def _accuracy_chart(run: RecordedRun, tables: Sequence[tuple[int, object]], title: str, note: str) -> Chart | None:
    """Accuracy by mode over the steps of evaluations (`{mode: {...}}`)."""
    by_mode: dict[str, list[tuple[int, Result]]] = {}
    for step, table in tables:
        for row in rows({}, table):
            if not row.name and row.after.accuracy is not None:
                by_mode.setdefault(row.mode, []).append((step, row.after))
    lines, latest = [], []
    for place, mode in enumerate(run.modes):
        found = by_mode.get(mode, [])
        if not found:
            continue
        values = [result.accuracy or 0.0 for _, result in found]
        band = [result.interval or (value, value) for value, (_, result) in zip(values, found, strict=True)]
        lines.append(charts.Line(place=place, steps=[step for step, _ in found], values=values, band=band))
        latest.append(Latest(label=mode, colour=palette.mode_variable(place), value=formats.percent(values[-1])))
    if not lines:
        return None
    svg = charts.line_chart(lines, share=True, full_scale=True, wide=True)
    return Chart(title=title, note=note, latest=latest, svg=svg)


def _share_chart(run: RecordedRun, mode: str) -> Chart | None:
    """The parts' shares of |advantage| in a mode, one on top of the other; they add up to all of it."""
    parts = _names_between(run, "part_share")
    there = [row for row in run.metrics if any(f"part_share/{part}/{mode}" in row for part in parts)]
    if not there:
        return None
    layers = [[max(row.get(f"part_share/{part}/{mode}", 0.0), 0.0) for row in there] for part in parts]
    latest = [
        Latest(label=part, colour=palette.phase_variable(place), value=formats.percent(_recent(layer)))
        for place, (part, layer) in enumerate(zip(parts, layers, strict=True))
    ]
    svg = charts.stacked_chart([row["step"] for row in there], layers, share=True)
    return Chart(title=f"{mode}: what advantages are made of", note="share of each part", latest=latest, svg=svg)


def _phase_chart(run: RecordedRun) -> Chart | None:
    recorded = {key.partition("/")[2] for row in run.metrics for key in row if key.startswith("wall_s/")}
    phases = [*(p for p in PHASES if p in recorded), *sorted(recorded - set(PHASES))]
    if not phases:
        return None
    steps = [row["step"] for row in run.metrics]
    layers = [[max(row.get(f"wall_s/{phase}", 0.0), 0.0) for row in run.metrics] for phase in phases]
    latest = [
        Latest(label=phase, colour=palette.phase_variable(place), value=f"{formats.number(_recent(layer))} s")
        for place, (phase, layer) in enumerate(zip(phases, layers, strict=True))
    ]
    svg = charts.stacked_chart(steps, layers, wide=True)
    return Chart(title="Seconds per phase", note="where the time of a step goes", latest=latest, svg=svg)


def _names_between(run: RecordedRun, kind: str, metric: str = "") -> list[str]:
    """The X of `KIND/X[/METRIC]/MODE` over all steps, in order of appearance. X may hold slashes itself."""
    found: dict[str, None] = {}
    for row in run.metrics:
        for key in row:
            if not key.startswith(f"{kind}/"):
                continue
            middle = key.partition("/")[2].rpartition("/")[0]
            if metric and middle.endswith(f"/{metric}"):
                middle = middle.removesuffix(f"/{metric}")
            elif metric:
                continue
            if middle:
                found[middle] = None
    return list(found)[:MAX_SPLIT_CHARTS]


def _form(run: RecordedRun, name: str, title: str, *, full_scale: bool = False, wide: bool = False) -> Chart | None:
    return _mode_chart(run, name, title, MODE_METRICS[name], share=True, full_scale=full_scale, wide=wide)


def _plain(run: RecordedRun, name: str, title: str, wide: bool = False) -> Chart | None:
    return _mode_chart(run, name, title, MODE_METRICS[name], wide=wide)


def _total(run: RecordedRun, name: str, title: str) -> Chart | None:
    return _mode_chart(run, name, title, MODE_METRICS[name] + ", in all so far", cumulative=True, wide=True)


def _learning(run: RecordedRun) -> list[Chart | None]:
    return [
        _plain(run, "reward", "Reward", wide=True),
        _form(run, "accuracy", "Training accuracy", full_scale=True, wide=True),
        _evaluation_chart(run),
        _plain(run, "tokens", "Response length", wide=True),
    ]


_RARE = {
    "unscored": "Unscored",
    "few_scored": "Groups with too few scores",
    "closed_by_budget": "Thoughts closed at their budget",
}


def _responses(run: RecordedRun) -> list[Chart | None]:
    found = [
        _form(run, "well_formed", "Well-formed", full_scale=True),
        _form(run, "leaked", "Leaked"),
        _form(run, "truncated", "Truncated"),
        _form(run, "leaked_thought", "Thought where none is asked for", full_scale=True),
        _form(run, "empty_thought", "Empty thoughts", full_scale=True),
        _plain(run, "reflections_per_1k", "Reflection markers"),
    ]
    # A mode that asks for no thought has its leaks, one that asks for it its empty thoughts; the others choose.
    choosing = any(
        f"thinks/{m}" in row and f"leaked_thought/{m}" not in row and f"empty_thought/{m}" not in row
        for row in run.metrics
        for m in run.modes
    )
    if choosing:
        found += [_form(run, "thinks", "Thinks"), _form(run, "hybrid_accuracy", "In the better mode", full_scale=True)]
    # Rewards that abstain are rare; a flat line at zero would only take room.
    rare = [name for name in _RARE if any(row.get(f"{name}/{m}") for row in run.metrics for m in run.modes)]
    return found + [_form(run, name, _RARE[name]) for name in rare]


def _policy(run: RecordedRun) -> list[Chart | None]:
    return [
        _form(run, "zero_variance", "Groups without variance", full_scale=True),
        _plain(run, "entropy", "Entropy"),
        _plain(run, "kl", "KL to the reference"),
        _form(run, "clip_fraction", "Clipped tokens"),
        _run_chart(run, "loss", "Loss"),
        _run_chart(run, "grad_norm", "Gradient norm"),
    ]


def _speed(run: RecordedRun) -> list[Chart | None]:
    return [
        _phase_chart(run),
        _run_chart(run, "tokens_per_s", "Tokens per second", wide=True),
        _total(run, "rollout_tokens", "Rollout tokens"),
        _total(run, "update_tokens", "Update tokens"),
    ]


def sections(run: RecordedRun) -> list[Section]:
    """All charts that the run has data for."""
    parts = [_mode_chart(run, f"part/{p}", p, "mean of this reward, unweighted") for p in _names_between(run, "part")]
    parts += [_share_chart(run, mode) for mode in run.modes]
    tasks = [
        _mode_chart(run, f"task/{task}/accuracy", task, "accuracy on this task", share=True, full_scale=True)
        for task in _names_between(run, "task", "accuracy")
    ]
    plan: list[tuple[str, list[Chart | None], bool]] = [
        ("Learning", _learning(run), True),
        ("Accuracy on evaluation sets", _set_charts(run), True),
        ("Reward parts", parts, False),
        ("Training accuracy by task", tasks, False),
        ("Form of the responses", _responses(run), False),
        ("Learning signal and policy", _policy(run), False),
        ("Speed and spending", _speed(run), True),
    ]
    drawn = ((title, [chart for chart in wanted if chart is not None], wide) for title, wanted, wide in plan)
    return [Section(title=title, charts=found, wide=wide) for title, found, wide in drawn if found]
