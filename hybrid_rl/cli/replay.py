"""`hybrid-rl replay RUN [--rewards FILE] [--advantage NAME] [a.b=value ...]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hybrid_rl.errors import ConfigError


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run with recorded responses.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Other changes: section.key=value.")] = None,
    rewards: Annotated[
        Path | None, typer.Option(help="YAML with a `rewards` section; the responses are scored again with it.")
    ] = None,
    advantage: Annotated[str | None, typer.Option(help="Another estimator, such as dr_grpo.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Show what recorded responses would have taught with other rewards or another estimator. Nothing is sampled."""
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()
    from rich.console import Console

    from hybrid_rl.config import load_config
    from hybrid_rl.run_folder import RunFolder
    from hybrid_rl.studies.replay import as_json as to_json
    from hybrid_rl.studies.replay import replay
    from hybrid_rl.studies.replay_table import print_replay

    folder = RunFolder.existing(run)
    changes = list(overrides or [])
    if rewards is not None:
        changes.insert(0, f"rewards={json.dumps(_rewards(rewards))}")
    if advantage is not None:
        changes.append(f"train.estimator={advantage}")
    changed = load_config(folder.path / "config.yaml", changes) if changes else None
    rescore = rewards is not None or any(change.startswith("rewards") for change in changes)
    found = replay(folder, changed, rescore=rescore)
    if as_json:
        print(json.dumps(to_json(found)))
    else:
        print_replay(found, Console(highlight=False, soft_wrap=True))


def _rewards(path: Path) -> dict[str, object]:
    from hybrid_rl.config.yaml_reader import read_yaml

    values = read_yaml(path).values
    section = values.get("rewards", values)
    if not isinstance(section, dict) or not section:
        raise ConfigError(f"{path} has no rewards; give it a section `rewards`, as a config has one")
    return section
