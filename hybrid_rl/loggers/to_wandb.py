"""Weights & Biases. Offline runs are sent later with `wandb sync RUN/logs/wandb/wandb/offline-*`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from hybrid_rl.config.log import LogConfig
from hybrid_rl.loggers.shown import COLUMNS, ShownSample


class WandbLogger:
    """See `hybrid_rl.loggers.choice.Logger`. The id follows from the folder, so that a resumed run is the same run."""

    def __init__(self, place: Path, name: str, config: LogConfig, settings: Mapping[str, Any]) -> None:
        self._run = wandb.init(
            project=config.project,
            name=name,
            id=hashlib.sha256(str(place).encode()).hexdigest()[:16],
            resume="allow",
            dir=str(place),
            config=dict(settings),
            mode="online" if config.online else "offline",
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, save_code=False
            ),
        )
        # Evaluations come after the step that they belong to; the number of calls is no axis.
        self._run.define_metric("*", step_metric="step")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        table = wandb.Table(columns=list(COLUMNS), data=[list(s.row) for s in samples], allow_mixed_types=True)
        # Images stand beside the table: inside it an offline run would keep them outside of its folder.
        pictures = {f"samples/{s.mode}": wandb.Image(s.images[0]) for s in reversed(samples) if s.images}
        self._run.log({"samples": table, **pictures, "step": step})

    def close(self) -> None:
        self._run.finish()
