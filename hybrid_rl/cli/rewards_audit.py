"""`hybrid-rl rewards audit`: are the labels right, and is the reward?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hybrid_rl.cli.tables import print_table, table


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    samples: Annotated[int, typer.Option("--samples", min=1, help="Responses to draw.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same responses.")] = 0,
    second: Annotated[
        str | None, typer.Option("--second", metavar="TARGET", help="A second reward on answer and gold.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Only say what the marks so far amount to.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --report: one JSON object and nothing else.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
) -> None:
    """Shows responses where judges disagree, and others at random, on a local page to be marked.

    Marks are kept at once in RUN/audit.jsonl, and the next call goes on where the last one ended.
    """
    from hybrid_rl.authoring.audit import Audit
    from hybrid_rl.authoring.audit_draw import draw
    from hybrid_rl.authoring.audit_judges import judging_parts, second_grader
    from hybrid_rl.authoring.audit_page import AuditServer
    from hybrid_rl.errors import RunFolderError
    from hybrid_rl.insight.recorded import read_run
    from hybrid_rl.run_folder import RunFolder

    folder = RunFolder.existing(run)
    audit = Audit(folder)
    if report:
        _report(audit, as_json)
        return
    recorded = read_run(folder.path)
    if audit.draw is None:
        search = [*folder.config().search, str(Path.cwd())]
        grader = second_grader(second, search) if second else None
        found = draw(recorded, samples=samples, seed=seed, parts=judging_parts(folder.config()), second=grader)
        if not found.chosen:
            raise RunFolderError(f"{run} has no recorded responses with an accuracy; let it train a step first")
        audit.begin(found)
    assert audit.draw is not None
    strata = ", ".join(f"{size:,} {stratum}" for stratum, size in audit.draw.population.items())
    print(f"{len(audit.draw.chosen)} responses drawn ({strata} in the run), {len(audit.marks)} of them marked")
    try:
        server = AuditServer(recorded, audit, port)
    except OSError as error:
        raise RunFolderError(f"port {port} cannot be used: {error.strerror}; choose another with --port") from error
    print(f"{server.url}\nCtrl-C ends it; marks are kept.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    if audit.marks:
        _report(audit, as_json)


def _report(audit: Any, as_json: bool) -> None:
    found = audit.report()
    if as_json:
        print(json.dumps({"label_accuracy": _numbers(found.label), "reward_accuracy": _numbers(found.reward),
                          "strata": found.counts, "left_out": found.left_out}))  # fmt: skip
        return
    shown = table("stratum", *next(iter(found.counts.values())))
    for stratum, counts in found.counts.items():
        shown.add_row(stratum, *map(str, counts.values()))
    print_table(shown)
    for name, estimate in (("label accuracy", found.label), ("reward accuracy", found.reward)):
        print(f"{name} {estimate.share:.1%}, 95 % interval {estimate.low:.1%} to {estimate.high:.1%}")
    if found.left_out:
        print(f"without a mark, so not in these figures: {', '.join(found.left_out)}")


def _numbers(estimate: Any) -> dict[str, float] | Sequence[float]:
    return {"share": estimate.share, "low": estimate.low, "high": estimate.high}
