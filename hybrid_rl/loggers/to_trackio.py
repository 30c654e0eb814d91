"""Trackio, which keeps everything in a local database: `TRACKIO_DIR=RUN/logs/trackio trackio show`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybrid_rl.config.log import LogConfig
from hybrid_rl.loggers.shown import COLUMNS, ShownSample


class TrackioLogger:
    """See `hybrid_rl.loggers.choice.Logger`. Trackio reads its folder from the environment when it is imported."""

    def __init__(self, place: Path, name: str, config: LogConfig, settings: Mapping[str, Any]) -> None:
        os.environ["TRACKIO_DIR"] = str(place)
        import trackio

        self._trackio = trackio
        self._run = trackio.init(
            project=config.project, name=name, resume="allow", config=dict(settings), embed=False, auto_log_gpu=False
        )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        import pandas

        rows = [dict(zip(COLUMNS, sample.row, strict=True)) for sample in samples]
        pictures: dict[str, Any] = {
            f"samples/{s.mode}": self._trackio.Image(s.images[0]) for s in reversed(samples) if s.images
        }
        self._run.log({"samples": self._trackio.Table(dataframe=pandas.DataFrame(rows)), **pictures}, step=step)

    def close(self) -> None:
        self._run.finish()
