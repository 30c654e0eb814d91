"""SwanLab. Offline it keeps its own files: `swanlab sync RUN/logs/swanlab/run-*`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import swanlab

from hybrid_rl.config.log import LogConfig
from hybrid_rl.loggers.shown import COLUMNS, ShownSample


class SwanlabLogger:
    """See `hybrid_rl.loggers.choice.Logger`."""

    def __init__(self, place: Path, name: str, config: LogConfig, settings: Mapping[str, Any]) -> None:
        self._run = swanlab.init(
            project=config.project,
            experiment_name=name,
            config=dict(settings),
            logdir=str(place),
            mode="cloud" if config.online else "offline",
        )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        texts = [
            swanlab.Text("\n".join(f"{n}: {v}" for n, v in zip(COLUMNS, s.row, strict=True)), caption=s.mode)
            for s in samples
        ]
        pictures = {f"samples/{s.mode}": swanlab.Image(s.images[0]) for s in reversed(samples) if s.images}
        self._run.log({"samples/text": texts, **pictures}, step=step)

    def close(self) -> None:
        swanlab.finish()
