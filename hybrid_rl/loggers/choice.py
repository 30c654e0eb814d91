"""Opens the loggers that a config names."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from hybrid_rl.config.log import LogConfig
from hybrid_rl.errors import ConfigError
from hybrid_rl.loggers.shown import ShownSample


class Logger(Protocol):
    """One logger. Built as `Logger(folder, name, config, settings)`; a run that goes on finds its own earlier log."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """The metrics of a step, or of an evaluation after it."""
        ...

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None: ...

    def close(self) -> None: ...


_LOGGERS = {
    "tensorboard": ("tensorboard", "hybrid_rl.loggers.to_tensorboard:TensorBoardLogger"),
    "wandb": ("wandb", "hybrid_rl.loggers.to_wandb:WandbLogger"),
    "mlflow": ("mlflow", "hybrid_rl.loggers.to_mlflow:MlflowLogger"),
    "trackio": ("trackio", "hybrid_rl.loggers.to_trackio:TrackioLogger"),
    "swanlab": ("swanlab", "hybrid_rl.loggers.to_swanlab:SwanlabLogger"),
}
"""Name -> the package of its client, and our class."""


def check_loggers(config: LogConfig) -> None:
    """Raise a ConfigError if the client of a logger is not installed."""
    for name in config.to:
        package = _LOGGERS[name][0]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"log.to names {name}, but its client is not installed; run `pip install {package}`")


class Loggers:
    """All loggers of a run as one."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = loggers

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        for logger in self._loggers:
            logger.metrics(step, values)

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        for logger in self._loggers:
            logger.samples(step, samples)

    def close(self) -> None:
        """Close all, whatever one of them raises."""
        with ExitStack() as stack:
            for logger in self._loggers:
                stack.callback(logger.close)


def open_loggers(config: LogConfig, folder: Path, settings: Mapping[str, Any]) -> Loggers:
    """Open the loggers of a run.

    Args:
        folder: the run folder; what stays on this machine goes below its `logs`.
        settings: the run's config, for loggers that show it.
    """
    opened = []
    with ExitStack() as undo:  # where one cannot be opened, those before it are closed
        for name in dict.fromkeys(config.to):
            module, _, attribute = _LOGGERS[name][1].partition(":")
            logger = getattr(importlib.import_module(module), attribute)
            place = folder.resolve() / "logs" / name
            place.mkdir(parents=True, exist_ok=True)
            opened.append(logger(place, folder.resolve().name, config, settings))
            undo.callback(opened[-1].close)
        undo.pop_all()
    return Loggers(opened)
