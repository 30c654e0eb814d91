"""`run.stop_when`: checked against the metrics there are, before a run begins."""

from __future__ import annotations

import difflib

from hybrid_rl.config import Config
from hybrid_rl.config.condition import Condition
from hybrid_rl.errors import ConfigError
from hybrid_rl.insight.evaluation_metrics import evaluation_metric_names


def check_stop_condition(config: Config, step_metrics: list[str], tasks: list[str]) -> None:
    """Refuse a condition on a metric that the run will not have.

    Raises:
        ConfigError: with the nearest name.
    """
    if config.run.stop_when is None:
        return
    metric = Condition.parse(config.run.stop_when).metric
    names = [*step_metrics, *evaluation_metric_names(config, tasks)]
    if metric in names:
        return
    if metric.startswith(("eval/", "eval_set/")) and not any(name.startswith("eval") for name in names):
        raise ConfigError(
            f"run.stop_when: '{metric}' is not measured in training; set evaluation.every_steps to evaluate then"
        )
    near = difflib.get_close_matches(metric, names, n=1, cutoff=0.3)
    hint = f"; did you mean '{near[0]}'?" if near else "; docs/metrics.md lists them"
    raise ConfigError(f"run.stop_when: there is no metric '{metric}'{hint}")
