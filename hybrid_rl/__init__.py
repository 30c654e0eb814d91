"""hybrid-rl: RL post-training for models that answer briefly or think at length.

    import hybrid_rl
    config = hybrid_rl.load_config("configs/grpo_mixed.yaml", ["run.steps=20"])
    summary = hybrid_rl.run(config)

Importing this package is light: torch, ray and the rest are imported when a run is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybrid_rl.errors import ConfigError, DataError, PluginError, UserError
from hybrid_rl.records import Prompt, Request, Response, Rollout, Sample, Score

if TYPE_CHECKING:
    from hybrid_rl.config import Config

__all__ = [
    "ConfigError",
    "DataError",
    "PluginError",
    "Prompt",
    "Request",
    "Response",
    "Rollout",
    "Sample",
    "Score",
    "UserError",
    "load_config",
    "run",
]
__version__ = "0.1.0"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config, apply `a.b=value` overrides, and check all of it. See docs/config.md for the keys."""
    from hybrid_rl.config import load_config as load

    return load(path, overrides)


def run(config: Config) -> dict[str, Any]:
    """Train as `hybrid-rl train` does and return the content of `summary.json`."""
    from hybrid_rl.train import run as run_training

    return run_training(config)
