"""`hybrid-rl rewards ...`: list, start, test and measure rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="List, start, test and measure rewards.")

_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_Target = Annotated[str, typer.Argument(metavar="REWARD", help="module:name, file.py:name or an entry point.")]
_TimeoutS = Annotated[float, typer.Option("--timeout-s", min=0.01, help="Seconds a verdict may take.")]


@app.command("list")
def list_command(as_json: _AsJson = False) -> None:
    """Every reward that can be named, with the first line of its description."""
    from hybrid_rl.authoring.listing import list_rewards

    found = list_rewards()
    if as_json:
        print(json.dumps({listed.name: listed.summary for listed in found}))
        return
    table = _table("reward", "what it is")
    for listed in found:
        table.add_row(listed.name, listed.summary)
    _print(table)


@app.command("check")
def check_command(
    cases: Annotated[Path, typer.Argument(metavar="CASES.jsonl", help="Labelled cases, one JSON object a line.")],
    reward: Annotated[str | None, typer.Option("--reward", help="For all cases, instead of each one's metric.")] = None,
    as_json: _AsJson = False,
    timeout_s: _TimeoutS = 1.0,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Scorers that work at the same time.")] = 2,
) -> None:
    """How often verdicts on labelled cases are right, and how long they take. No verdict is no credit."""
    from hybrid_rl.authoring.cases import read_cases
    from hybrid_rl.authoring.check import check_cases, report

    search = [str(cases.resolve().parent), str(Path.cwd())]
    checked = check_cases(read_cases(cases), reward, search, timeout_s=timeout_s, processes=processes)
    found = report(checked)
    if as_json:
        print(json.dumps(found))
        return
    columns = ("n", "accuracy", "false_positives", "false_negatives", "abstained", "p50_ms", "p99_ms", "max_ms")
    table = _table("metric", *columns)
    for name, figures in [*found["by_metric"].items(), ("all", found["all"])]:
        table.add_row(name, *(f"{figures[c]:.1%}" if c == "accuracy" else f"{figures[c]:g}" for c in columns))
    _print(table)
    wrong = [item for item in checked if item.error]
    if wrong:
        table = _table("wrong case", "metric", "expected", "score", "outcome", "gold", "pred")
        for item in wrong:
            case, verdict = item.case, item.verdict
            shown = "" if verdict.value is None else f"{verdict.value:g}"
            outcome = verdict.outcome.value
            table.add_row(
                case.id, case.metric, str(case.expected), shown, outcome, _short(case.gold), _short(case.pred)
            )
        _print(table)


def _table(*columns: str) -> Any:
    from rich.table import Table

    return Table(*columns)


def _print(shown: Any) -> None:
    from rich.console import Console

    Console(highlight=False, markup=False).print(shown)


def _short(value: Any) -> str:
    from hybrid_rl.insight.visible import visible

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return visible(text if len(text) <= 60 else f"{text[:40]} ... {text[-15:]}")
