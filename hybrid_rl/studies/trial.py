"""`python -m hybrid_rl.studies.trial CONFIG.yaml [--warm-up-only]`: one run of an ablation, in a process of its own.

It starts the run, or goes on with it if its folder is there. It holds on to its standard input: when that is closed,
because whoever started it asks it to stop or has died, it stops as it would on Ctrl-C, with a checkpoint.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from hybrid_rl.config import Config, load_config
from hybrid_rl.errors import Interrupted, RunFolderError, UserError, WorkerDied
from hybrid_rl.quiet import quiet_environment
from hybrid_rl.run_folder import RunFolder

EXIT_USER_ERROR, EXIT_FAILED, EXIT_INTERRUPTED = 2, 1, 130
_WAIT_S = 300.0
"""Longest wait for a former process of the same run, which may be saving its last checkpoint."""


def run_trial(config: Config) -> None:
    """Bring a run to its end, from wherever it is. `config.run.dir` is its folder."""
    from hybrid_rl import train

    existing = _reopened(config)
    if existing is None:
        train.run(config)
    elif existing.summary().get("status") != "completed":
        train.resume(existing.path)


def make_warm_up(config: Config) -> None:
    """Do the supervised stage of a config and keep it in the cache; its run folder is only a place to work in."""
    from hybrid_rl.build import open_run
    from hybrid_rl.stages.cache import cache_folder
    from hybrid_rl.stages.warmup import warm_up

    existing = _reopened(config)
    if (cache_folder(config) / "config.json").is_file():
        shutil.rmtree(config.run.dir or "", ignore_errors=True)
        return
    with open_run(existing.config() if existing else config, existing) as run:
        if run.warm_up_needed:
            warm_up(run)
    shutil.rmtree(config.run.dir or "")


def _reopened(config: Config) -> RunFolder | None:
    """The folder of the run if it can be gone on with; one that nothing was saved in is removed."""
    path = Path(config.run.dir or "")
    if not (path / "config.yaml").is_file():
        shutil.rmtree(path, ignore_errors=True)  # cut off while it was made
        return None
    _wait_until_free(path)
    folder = RunFolder.existing(path)
    if not folder.checkpoints():
        shutil.rmtree(path)
        return None
    return folder


def _wait_until_free(path: Path) -> None:
    deadline = time.monotonic() + _WAIT_S
    with (path / "config.yaml").open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunFolderError(f"run {path} is being trained by another process; stop it first") from None
                time.sleep(0.5)
            except OSError:  # the file system has no locks
                return


def _stop_with_standard_input() -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="standard input", daemon=True).start()


def main() -> int:
    quiet_environment()
    _stop_with_standard_input()
    try:
        config = load_config(sys.argv[1])
        (make_warm_up if "--warm-up-only" in sys.argv[2:] else run_trial)(config)
    except (UserError, WorkerDied) as error:
        print(f"hybrid-rl: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILED
    except (Interrupted, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
