"""MLflow. Offline it keeps a SQLite file: `mlflow ui --backend-store-uri sqlite:///RUN/logs/mlflow/mlflow.db`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param

from hybrid_rl.config.log import LogConfig
from hybrid_rl.loggers.mlflow_names import mlflow_name
from hybrid_rl.loggers.shown import COLUMNS, ShownSample

_RUN_FILE = "run_id"
_MOST_AT_ONCE = 500
_LONGEST_SETTING = 500


class MlflowLogger:
    """See `hybrid_rl.loggers.choice.Logger`. The id of the run is kept beside its data, for a run that goes on."""

    def __init__(self, place: Path, name: str, config: LogConfig, settings: Mapping[str, Any]) -> None:
        local = None if config.online else f"sqlite:///{place / 'mlflow.db'}"
        self._client = mlflow.MlflowClient(tracking_uri=local)
        known = place / _RUN_FILE
        if known.is_file():
            self._id = known.read_text()
            self._client.update_run(self._id, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(config.project)
        where = None if config.online else (place / "artifacts").as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(config.project, where)
        self._id = self._client.create_run(experiment, run_name=name).info.run_id
        texts = {key: json.dumps(value, default=str)[:_LONGEST_SETTING] for key, value in settings.items()}
        self._client.log_batch(self._id, params=[Param(key, text) for key, text in texts.items()])
        known.write_text(self._id)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        now = mlflow.utils.time.get_current_time_millis()
        entries = [Metric(mlflow_name(name), float(value), now, step) for name, value in values.items()]
        for start in range(0, len(entries), _MOST_AT_ONCE):
            self._client.log_batch(self._id, metrics=entries[start : start + _MOST_AT_ONCE])

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        rows = [dict(zip(COLUMNS, sample.row, strict=True)) for sample in samples]
        self._client.log_dict(self._id, {"samples": rows}, f"samples/step_{step:06d}.json")
        for mode, image in {s.mode: s.images[0] for s in reversed(samples) if s.images}.items():
            safe = mlflow_name(mode).replace("/", "_")
            self._client.log_image(self._id, image, f"samples/step_{step:06d}_{safe}.png")

    def close(self) -> None:
        self._client.set_terminated(self._id)
