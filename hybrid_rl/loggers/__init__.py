"""Metrics and samples for the loggers that people already look at. The names are those of `metrics.jsonl`."""

from hybrid_rl.loggers.choice import check_loggers, open_loggers
from hybrid_rl.loggers.shown import ShownSample, first_groups

__all__ = ["ShownSample", "check_loggers", "first_groups", "open_loggers"]
