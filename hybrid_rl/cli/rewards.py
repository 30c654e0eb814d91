"""`hybrid-rl rewards ...`: list, start, test and measure rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hybrid_rl.cli import rewards_audit, rewards_fuzz
from hybrid_rl.cli.tables import one_line, print_table, short, table, value_of

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
    shown = table("reward", "what it is")
    for listed in found:
        shown.add_row(listed.name, listed.summary)
    print_table(shown)


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
    shown = table("metric", *columns)
    for name, figures in [*found["by_metric"].items(), ("all", found["all"])]:
        shown.add_row(name, *(f"{figures[c]:.1%}" if c == "accuracy" else f"{figures[c]:g}" for c in columns))
    print_table(shown)
    wrong = [item for item in checked if item.error]
    if wrong:
        shown = table("wrong case", "metric", "expected", "score", "outcome", "gold", "pred")
        for item in wrong:
            case, verdict = item.case, item.verdict
            score = "" if verdict.value is None else f"{verdict.value:g}"
            outcome = verdict.outcome.value
            shown.add_row(case.id, case.label, str(case.expected), score, outcome, short(case.gold), short(case.pred))
        print_table(shown)


@app.command("new")
def new_command(
    name: Annotated[str, typer.Argument(help="Name of the function, its file and its part of the reward.")],
    config: Annotated[Path | None, typer.Option("--config", help="Config to enter it into.")] = None,
) -> None:
    """Write a reward that works, a test, and its entry in a config."""
    from hybrid_rl.authoring.scaffold import entry, new_reward

    for path in new_reward(name, Path.cwd(), config):
        print(path)
    if config is None:
        print(f"under `rewards:` of your config:\n{entry(name)}")


@app.command("test")
def test_command(
    reward: _Target,
    gold: Annotated[list[str] | None, typer.Option("--gold", help="A reference it can read; may be repeated.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="NAME=VALUE of a data column it asks for; VALUE as JSON or text."),
    ] = None,
    args: Annotated[str, typer.Option("--args", help="Arguments of a class, as a JSON object.")] = "{}",
    timeout_s: _TimeoutS = 1.0,
) -> None:
    """Contract, full marks for the reference, determinism, hostile inputs, speed. Exit code 2 if one is not kept."""
    from hybrid_rl.authoring.contract import try_reward
    from hybrid_rl.errors import UserError

    columns = {name: value_of(text) for name, _, text in (item.partition("=") for item in column or [])}
    built_with = value_of(args)
    if not isinstance(built_with, dict):
        raise UserError("--args is not a JSON object; write --args '{\"name\": value}'")
    golds = gold or ["42", "red apple"]
    search = [str(Path.cwd())]
    findings = try_reward(reward, search, args=built_with, golds=golds, columns=columns, timeout_s=timeout_s)
    shown = table("check", "", "what was found")
    for finding in findings:
        shown.add_row(finding.topic, {True: "ok", False: "NO", None: "-"}[finding.kept], one_line(finding.detail))
    print_table(shown)
    broken = [finding.topic for finding in findings if finding.kept is False]
    if broken == ["contract"]:
        raise UserError(f"{reward} does not keep: contract; {findings[0].detail}")
    if broken:
        raise UserError(f"{reward} does not keep: {', '.join(broken)}")


@app.command("check-data")
def check_data_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML config with data and rewards.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to it: section.key=value.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Rows of each split to look at.")] = 1000,
) -> None:
    """Every reference, given as the answer, must get full marks. Rows that do not are listed; exit code 2."""
    from hybrid_rl.authoring.data_check import check_data
    from hybrid_rl.config import load_config
    from hybrid_rl.errors import DataError

    looked_at, unfit = check_data(load_config(config, overrides or []), n)
    if unfit:
        shown = table("row", "split", "source", "task", "gold", "what became of it")
        for row in unfit:
            prompt = row.prompt
            shown.add_row(prompt.id, row.split, prompt.source, prompt.task, short(prompt.gold), one_line(row.reason))
        print_table(shown)
        raise DataError(f"{len(unfit)} of {looked_at} references do not get full marks from rewards.accuracy")
    print(f"{looked_at} references, all with full marks from rewards.accuracy")


app.command("fuzz")(rewards_fuzz.command)
app.command("audit")(rewards_audit.command)
