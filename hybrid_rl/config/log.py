"""`log`: who else is told what a run measures, beside its own files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hybrid_rl.config.section import Section

LoggerName = Literal["tensorboard", "wandb", "mlflow", "trackio", "swanlab"]


class LogConfig(Section):
    """Who else is told what a run measures. Its own files and report are written in any case."""

    to: list[LoggerName] = Field(default_factory=list)
    """Loggers that metrics and samples are sent to, each through its own client, which must be installed."""
    online: bool = False
    """Let wandb, mlflow and swanlab talk to their servers, as their own settings say. Off: everything stays in the run
    folder."""
    project: str = "hybrid-rl"
    """Project, or experiment, that the run belongs to."""
    samples_every_steps: int = Field(default=10, ge=1)
    """Steps between samples: the first group of each mode, with its images and a strip of each video."""
