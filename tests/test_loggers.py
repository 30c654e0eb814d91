"""What each logger wrote, read back by its own reader."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hybrid_rl
from hybrid_rl.config import Config
from hybrid_rl.config.log import LogConfig
from hybrid_rl.errors import ConfigError
from hybrid_rl.loggers import choice
from hybrid_rl.loggers.mlflow_names import mlflow_name
from hybrid_rl.preflight import prepare
from hybrid_rl.train import resume

SmallConfig = Callable[..., Config]
NAMES = ("tensorboard", "wandb", "mlflow", "trackio", "swanlab")
INSTALLED = [name for name in NAMES if importlib.util.find_spec(name) is not None]

Points = dict[str, list[tuple[int, float]]]


def read_tensorboard(place: Path) -> tuple[Points, int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    points = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return points, sum(len(events.Images(tag)) for tag in events.Tags()["images"])


def wandb_records(file: Path) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of 32 KiB, fragments with checksum, length and kind in front."""
    data, place, parts = file.read_bytes(), 7, b""  # the file's own head has 7 bytes
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            yield parts
            parts = b""


def read_wandb(place: Path) -> tuple[Points, int]:
    from wandb.proto import wandb_internal_pb2

    points: Points = {}
    for data in (data for file in sorted(place.rglob("*.wandb")) for data in wandb_records(file)):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        for name, value in row.items():
            if isinstance(value, (int, float)) and "step" in row:
                points.setdefault(name, []).append((int(row["step"]), value))
    return points, len(list(place.rglob("*.png")))


def read_mlflow(place: Path) -> tuple[Points, int]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "hybrid-rl"]
    (run,) = client.search_runs([experiment.experiment_id])
    points = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics
    }
    return points, len(list(place.rglob("*.png")))


READERS: dict[str, Callable[[Path], tuple[Points, int]]] = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, an interruption, a third step: with all loggers that are installed and can be read back."""
    from conftest import DEFAULT_CONFIG, SMALL

    folder = tmp_path_factory.mktemp("logged") / "run"
    to = [name for name in INSTALLED if name in READERS]
    config = hybrid_rl.load_config(
        DEFAULT_CONFIG,
        [*SMALL, f"run.dir={folder}", f"log.to={to}".replace("'", ""), "warmup=null", "evaluation.every_steps=2"],
    )
    longer = config.model_copy(update={"run": config.run.model_copy(update={"steps": 2})})
    hybrid_rl.run(longer)
    (folder / "config.yaml").write_text(hybrid_rl.config.dump_config(config))
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    resume(folder)
    return folder


@pytest.mark.parametrize("name", list(READERS))
def test_every_metric_is_there_under_its_own_name(logged: Path, name: str) -> None:
    if name not in INSTALLED:
        pytest.skip(f"{name} is not installed")
    points, images = READERS[name](logged / "logs" / name)
    rows = [json.loads(line) for line in (logged / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for key in {key for row in rows for key in row} - {"step"}:
        expected = [(row["step"], pytest.approx(row[key], rel=1e-5, abs=1e-7)) for row in rows if key in row]
        assert points[key] == expected, key
    first = json.loads((logged / "summary.json").read_text())["eval"]["before"]["short"]["accuracy"]
    assert points["eval/accuracy/short"][0] == (0, pytest.approx(first))
    assert [step for step, _ in points["eval/accuracy/short"]][:2] == [0, 2]
    assert images >= 2  # the first group of each mode in the first step


def test_a_logger_that_is_not_installed_is_named_with_its_cure(
    small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "mlflow" else found(name, *a))
    with pytest.raises(
        ConfigError, match=r"log\.to names mlflow, but its client is not installed; run `pip install ml"
    ):
        prepare(small_config("log.to=[mlflow]"))
    with pytest.raises(ConfigError, match=r"log\.to"):
        small_config("log.to=[tensorbord]")


def test_loggers_that_are_open_are_closed_where_the_next_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Opens:
        def __init__(self, *_: object) -> None: ...

        def close(self) -> None:
            closed.append("first")

    class Fails:
        def __init__(self, *_: object) -> None:
            raise OSError("no space left on device")

    for logger in (Opens, Fails):
        monkeypatch.setattr(f"{__name__}.{logger.__name__}", logger, raising=False)
    monkeypatch.setitem(choice._LOGGERS, "tensorboard", ("tensorboard", f"{__name__}:Opens"))
    monkeypatch.setitem(choice._LOGGERS, "mlflow", ("mlflow", f"{__name__}:Fails"))
    with pytest.raises(OSError, match="no space"):
        choice.open_loggers(LogConfig(to=["tensorboard", "mlflow"]), tmp_path, {})
    assert closed == ["first"]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("reward/long", "reward/long"),
        ("task/读 数/accuracy/long-2", "task/读 数/accuracy/long-2"),
        ("eval_set/hard/pass@4/long", "eval_set/hard/pass_4/long"),
        ("task/math (hard)/reward/a+b", "task/math _hard_/reward/a_b"),
        ("task//reward/../long", "task/reward/__/long"),
        ("x" * 300, "x" * 250),
    ],
)
def test_mlflow_is_given_names_that_it_takes(name: str, taken: str) -> None:
    """One name that it refuses would end the run; names that it takes are left as they are."""
    assert mlflow_name(name) == taken


def test_what_a_model_wrote_cannot_leave_its_block_of_markdown() -> None:
    pytest.importorskip("tensorboard")
    from hybrid_rl.loggers.to_tensorboard import _quoted

    quoted = _quoted("```\n# not a heading\n````")
    assert quoted.startswith("\n`````\n") and quoted.endswith("\n`````")
