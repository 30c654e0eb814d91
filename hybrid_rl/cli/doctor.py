"""`hybrid-rl doctor CONFIG [a.b=value ...]`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hybrid_rl.errors import UserError


def command(
    config: Annotated[Path, typer.Argument(help="YAML config, such as configs/grpo_mixed.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to it: section.key=value.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Find out what a config will do and cost before the hours are spent; exit code 2 if it would be for nothing."""
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()
    from hybrid_rl.config import load_config
    from hybrid_rl.doctor.examine import examine
    from hybrid_rl.doctor.findings import Grade

    marks = {Grade.OK: " ", Grade.WARN: "!", Grade.REFUSE: "x"}
    found = []
    for finding in examine(load_config(config, overrides or [])):
        found.append(finding)
        if not as_json:
            print(f"{marks[finding.grade]} {finding.topic:<18} {finding.sentence}", flush=True)
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in found]}))
    refused = [finding for finding in found if finding.grade is Grade.REFUSE]
    if refused:
        raise UserError(f"this run should not be started: {refused[0].topic}: {refused[0].sentence}")
