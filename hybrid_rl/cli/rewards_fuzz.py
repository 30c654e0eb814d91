"""`hybrid-rl rewards fuzz`: random inputs of many classes, and what a reward made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybrid_rl.cli.tables import one_line, print_table, short, table, value_of

if TYPE_CHECKING:
    from hybrid_rl.authoring.fuzz import FuzzReport

_FAILED = 1


def command(
    reward: Annotated[
        str | None, typer.Argument(metavar="[REWARD]", help="module:name, file.py:name or an entry point.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every built-in reward instead.")] = False,
    number: Annotated[int, typer.Option("--number", min=1, help="Inputs, over all classes.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same inputs.")] = 0,
    gold: Annotated[list[str] | None, typer.Option("--gold", help="A reference it can read; may be repeated.")] = None,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Take the right answers of these labelled cases as references.")
    ] = None,
    mutations: Annotated[
        str | None,
        typer.Option("--mutations", help="Classes that must not change the verdict: names, `all`, or `none`."),
    ] = None,
    hacks: Annotated[
        str | None, typer.Option("--hacks", help="Classes that must not be paid: names, `all`, or `none`.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="NAME=VALUE of a data column it asks for; VALUE as JSON or text."),
    ] = None,
    args: Annotated[str, typer.Option("--args", help="Arguments of a class, as a JSON object.")] = "{}",
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=0.01, help="Seconds a verdict may take.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Rewrites right answers in ways that must not matter, tries to be paid for nothing, and sends noise.

    Exit code 1 if a verdict changes, a hack is paid as a right answer is, or an input ends in an exception or too late.
    Without --mutations those classes are tried whose plainest form the reward accepts for every reference.
    """
    from hybrid_rl.errors import UserError

    built_with = value_of(args)
    if not isinstance(built_with, dict):
        raise UserError("--args is not a JSON object; write --args '{\"name\": value}'")
    if everything == (reward is not None):
        raise UserError("name one reward to fuzz, or give --all")
    chosen = {"mutations": _classes(mutations, "mutations"), "hacks": _classes(hacks, "hacks")}
    columns = {name: value_of(text) for name, _, text in (item.partition("=") for item in column or [])}
    made = _reports([reward] if reward else None, cases, gold, columns, built_with, timeout_s, number, seed, chosen)
    reports = []
    for report in made:
        reports.append(report)
        if not as_json:
            _show(report)
    if as_json:
        print(json.dumps([_plain(r) for r in reports] if everything else _plain(reports[0]), ensure_ascii=True))
    if any(report.failed for report in reports):
        raise typer.Exit(_FAILED)


def _reports(
    rewards: Sequence[str] | None,
    cases: Path | None,
    golds: Sequence[str] | None,
    columns: dict[str, Any],
    args: dict[str, Any],
    timeout_s: float,
    number: int,
    seed: int,
    chosen: dict[str, list[str] | None],
) -> Iterator[FuzzReport]:
    from hybrid_rl.authoring.cases import read_cases
    from hybrid_rl.authoring.check import catalog
    from hybrid_rl.authoring.fuzz import fuzz
    from hybrid_rl.authoring.references import references_for
    from hybrid_rl.authoring.subject import Subject

    labelled = read_cases(cases) if cases is not None else None
    search = [str(folder) for folder in ([cases.resolve().parent] if cases else []) + [Path.cwd()]]
    for target in rewards or dict.fromkeys(catalog(search).values()):
        subject = Subject(target, search, args=args, columns=columns, timeout_s=timeout_s)
        try:
            references = references_for(subject, search, golds=golds, cases=labelled)
            yield fuzz(subject, references, number=number, seed=seed, **chosen)
        finally:
            subject.close()


def _classes(text: str | None, kind: str) -> list[str] | None:
    """The names that an option lists; None where it is not given."""
    import difflib

    from hybrid_rl.authoring.hacks import HACKS
    from hybrid_rl.authoring.mutations import MUTATIONS
    from hybrid_rl.errors import UserError

    known = list(MUTATIONS if kind == "mutations" else HACKS)
    if text is None or text == "none":
        return None if text is None else []
    names = known if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            raise UserError(f"--{kind}: there is no class '{name}'; {hint}")
    return names


def _show(report: FuzzReport) -> None:
    from hybrid_rl.authoring.subject import says

    columns = ("class", "kind", "references", "inputs", "failed", "errors", "too late", "max ms")
    shown, failures = table(*columns), []
    for found in report.classes:
        failed = f"{found.failed} (known)" if found.known and found.failed else str(found.failed)
        counts = (found.references, found.count, failed, found.errors, found.timeouts, f"{found.max_ms:.4g}")
        shown.add_row(found.name, found.kind, *map(str, counts))
        if found.smallest is not None:
            made = found.smallest.input
            verdict = one_line(says(found.smallest.verdict))
            failures.append(f"  {found.name}: {short(made.answer)!r} for {short(made.gold)!r}: {verdict}")
    print_table(shown)
    if failures:
        print("\n".join(["the smallest input that fails, by class:", *failures]))
    if report.unclaimed:
        print(f"no reference claims, so not tried: {', '.join(report.unclaimed)}")
    verdict = "FAILED" if report.failed else "ok"
    print(f"{report.reward}: {verdict}, {len(report.references)} references", flush=True)


def _plain(report: FuzzReport) -> dict[str, Any]:
    from hybrid_rl.authoring.subject import says

    classes = [
        {
            "class": found.name,
            "kind": found.kind,
            "references": found.references,
            "count": found.count,
            "failed": found.failed,
            "errors": found.errors,
            "timeouts": found.timeouts,
            "max_ms": found.max_ms,
            "known": found.known,
            "smallest": None
            if found.smallest is None
            else {
                "answer": found.smallest.input.answer,
                "gold": found.smallest.input.gold,
                "verdict": says(found.smallest.verdict),
            },
        }
        for found in report.classes
    ]
    return {
        "reward": report.reward,
        "references": list(report.references),
        "failed": report.failed,
        "count": sum(found.count for found in report.classes),
        "errors": sum(found.errors for found in report.classes),
        "timeouts": sum(found.timeouts for found in report.classes),
        "max_ms": max(found.max_ms for found in report.classes),
        "unclaimed": list(report.unclaimed),
        "classes": classes,
    }
