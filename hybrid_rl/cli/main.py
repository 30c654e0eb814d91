"""The `hybrid-rl` command: verbs, and the one place that prints errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from hybrid_rl.cli import ablate, doctor, evaluate, export, generate, replay, report, rewards, show_prompt, train
from hybrid_rl.errors import Interrupted, UserError, WorkerDied

EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="RL post-training for models that answer briefly or think at length.",
)
_VERBS: dict[str, Callable[..., Any]] = {
    "train": train.command,
    "doctor": doctor.command,
    "ablate": ablate.command,
    "eval": evaluate.command,
    "generate": generate.command,
    "export": export.command,
    "show-prompt": show_prompt.command,
    "replay": replay.command,
    "report": report.command,
}
for _name, _command in _VERBS.items():
    app.command(_name)(_command)
app.add_typer(rewards.app, name="rewards")


def main() -> None:
    """Run a verb; bad input is one sentence on standard error and exit code 2, a dead worker 1, Ctrl-C 130."""
    try:
        app()
    except UserError as error:
        print(f"hybrid-rl: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except WorkerDied as error:
        print(f"hybrid-rl: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"hybrid-rl: {str(error) or 'interrupted'}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
