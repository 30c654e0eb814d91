"""Typed, closed configuration. A typo fails with the key, its file and line, and the nearest valid name."""

from hybrid_rl.config.loading import dump_config, load_config
from hybrid_rl.config.modes import KindConfig, ModesConfig
from hybrid_rl.config.root import Config
from hybrid_rl.config.training import OptimizerConfig, TrainConfig, WarmupConfig

__all__ = [
    "Config",
    "KindConfig",
    "ModesConfig",
    "OptimizerConfig",
    "TrainConfig",
    "WarmupConfig",
    "dump_config",
    "load_config",
]
