"""Ablations: grids, intervals, the table, and folders that are gone on with."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import DEFAULT_CONFIG, REPOSITORY, SMALL
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hybrid_rl.config import load_config
from hybrid_rl.errors import ConfigError, Interrupted, RunFolderError
from hybrid_rl.preflight import prepare
from hybrid_rl.studies import folder
from hybrid_rl.studies.ablation import ablate
from hybrid_rl.studies.curves import CurvePoint, find_reached, sentence
from hybrid_rl.studies.design import Design, make_design
from hybrid_rl.studies.grid import Arm, read_grid, split_values
from hybrid_rl.studies.inference import paired_bootstrap, student
from hybrid_rl.studies.resources import SMALL_MODEL, is_small, settle
from hybrid_rl.studies.results import Outcome
from hybrid_rl.studies.table import make_table, to_csv, to_markdown
from hybrid_rl.studies.tuning import Ended, Job

LISTS = st.lists(
    st.integers(-99, 99) | st.floats(-9, 9).map(lambda x: round(x, 3)), min_size=2, max_size=5, unique=True
)


@given(LISTS, LISTS)
def test_a_grid_has_every_combination_once_in_order_under_names_of_its_own(
    first: list[float], second: list[float]
) -> None:
    def joined(values: list[float]) -> str:
        return ",".join(map(str, values))

    arms = read_grid([f"a.b={joined(first)}", f"c.b={joined(second)}", "x.y=1"]).arms()
    assert [(arm.values["a.b"], arm.values["c.b"]) for arm in arms] == [(x, y) for x in first for y in second]
    assert len({arm.name.lower() for arm in arms}) == len(arms)


@given(st.lists(st.lists(st.integers() | st.text("ab,]}'", max_size=4), max_size=3), min_size=1, max_size=4))
def test_commas_inside_of_a_value_do_not_split_it(values: list[list[object]]) -> None:
    texts = [yaml.safe_dump(value, default_flow_style=True, width=10**6).strip() for value in values]
    assert [yaml.safe_load(text) for text in split_values(",".join(texts), "k")] == values


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["modes.long_ratio="], "empty list"),
        (["modes.long_ratio=[]"], "empty list"),
        (["modes.long_ratio=0,,1"], "empty value"),
        (["modes.long_ratio=0,1,0.0"], "twice"),
        (["modes.long_ratio=0,1", "modes.long_ratio=0.5"], "given twice"),
        (["modes.long_ratio=0.5"], "no key has a list"),
        (["modes.long_ratio=0,1.5"], "less than or equal to 1"),
        (["modes.long_ratoi=0,1"], "did you mean 'long_ratio'"),
        (["modes.long_ratio=0,[1"], "not closed"),
        (["run.seed=1,2"], "--seeds"),
        (["run.dir=a,b"], "cannot be swept"),
        (["modes=1,2", "modes.long_ratio=0"], "inside"),
        (["long ratio"], "neither a list nor an override"),
        (["modes.long_ratio=0,1", "evaluation.after=false"], "evaluation.after"),
        (["modes.long_ratio=0,1", "warmup.cache=false"], "warmup.cache"),
        (["modes.long_ratio=0,1", "run.max_update_tokens=9"], "--equal tokens"),
    ],
)
def test_a_bad_grid_is_one_sentence(assignments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_design(DEFAULT_CONFIG, assignments, 2, "steps")


def test_equal_tokens_needs_a_budget() -> None:
    with pytest.raises(ConfigError, match="max_update_tokens"):
        make_design(DEFAULT_CONFIG, ["modes.long_ratio=0,1"], 2, "tokens")


def test_students_interval_by_hand() -> None:
    # t(0.975; 2) = 4.302653, s = 0.1, n = 3: half width 4.302653 * 0.1 / sqrt(3) = 0.248414
    assert student([0.4, 0.5, 0.6]) == pytest.approx((0.5 - 0.2484137, 0.5 + 0.2484137), abs=1e-6)
    assert student([0.5]) is None
    assert student([0.5, 0.5]) == (0.5, 0.5)


def test_the_paired_bootstrap_is_that_of_drawing_seeds_and_then_items() -> None:
    random = np.random.default_rng(0)
    seeds = [
        random.choice([-1.0, 0.0, 0.0, 1.0], size=size) + shift for size, shift in ((40, 0.1), (60, 0.3), (50, 0.2))
    ]
    means = []
    for _ in range(20_000):
        drawn = [seeds[i] for i in random.integers(3, size=3)]
        means.append(np.mean([items[random.integers(len(items), size=len(items))].mean() for items in drawn]))
    assert paired_bootstrap(seeds, 40_000) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.012)
    assert paired_bootstrap(seeds[:1]) is None


def outcome(seed: int, right: Sequence[int], update: float, mode: str = "long") -> Outcome:
    accuracy = sum(right) / len(right)
    figures = {mode: {"accuracy": accuracy, "tasks": {"sum": {"accuracy": accuracy}}}}
    items = {mode: {(f"p{i}", 0): float(value) for i, value in enumerate(right)}}
    tokens = {"rollout": update, "update": update}
    before = {mode: {"accuracy": 0.25}}
    return Outcome(seed=seed, before=before, after=figures, tokens=tokens, items=items, points=())


def arm(ratio: float, **others: float) -> Arm:
    return Arm(name=f"r={ratio}", values={"modes.long_ratio": ratio, **others}, overrides=())


def test_the_table_compares_runs_of_one_seed_item_by_item() -> None:
    arms = [arm(0.5), arm(1)]
    found = {
        "r=0.5": [outcome(0, [1, 1, 0, 1], 60), outcome(1, [1, 0, 0, 0], 80), outcome(2, [1, 1, 1, 1], 1)],
        "r=1": [outcome(0, [1, 0, 0, 0], 100), outcome(1, [1, 0, 0, 1], 100)],
    }
    rows = json.loads(json.dumps(make_table(arms, found)))
    half, whole = rows
    assert list(half) == ["name", "arm", "seeds", "before", "accuracy", "tasks", "tokens", "versus"]
    assert half["arm"] == {"modes.long_ratio": 0.5} and half["seeds"] == [0, 1, 2] and half["before"] == {"long": 0.25}
    assert half["accuracy"]["long"]["per_seed"] == [0.75, 0.25, 1.0]
    assert list(half["accuracy"]["long"]) == ["mean", "low", "high", "per_seed"]
    assert list(half["tasks"]["sum"]["long"]) == ["mean", "low", "high"]
    # Seed 2 is not finished in the other arm: it counts neither in the percentage nor in the difference.
    assert half["tokens"]["update_percent_of_long_only"] == pytest.approx(70.0)
    assert whole["tokens"]["update_percent_of_long_only"] == 100
    there, back = half["versus"]["r=1"]["long"], whole["versus"]["r=0.5"]["long"]
    assert there["difference"] == pytest.approx((0.5 - 0.25) / 2)
    assert [back["difference"], back["low"], back["high"]] == [-there["difference"], -there["high"], -there["low"]]
    assert there["low"] <= there["difference"] <= there["high"]
    assert "70.0" in to_markdown(rows) and len(to_csv(rows).splitlines()) == 1 + 4


def test_one_seed_has_figures_and_no_intervals() -> None:
    rows = make_table([arm(0.5), arm(0)], {"r=0.5": [outcome(0, [1, 0], 5)], "r=0": [outcome(0, [0, 0], 5)]})
    assert rows[0]["accuracy"]["long"] == {"mean": 0.5, "low": None, "high": None, "per_seed": [0.5]}
    assert rows[0]["versus"]["r=0"]["long"] == {"difference": 0.5, "low": None, "high": None}
    assert rows[0]["tokens"]["update_percent_of_long_only"] is None
    assert "no interval" in to_markdown(rows)


def test_long_only_is_the_arm_that_differs_in_nothing_else() -> None:
    arms = [
        Arm(name=f"{ratio}{x}", values={"modes.long_ratio": ratio, "x.y": x}, overrides=())
        for ratio in (0.5, 1)
        for x in (1, 2)
    ]
    update = {"0.51": 30, "0.52": 30, "11": 60, "12": 120}
    rows = make_table(arms, {name: [outcome(0, [1], tokens)] for name, tokens in update.items()})
    assert [row["tokens"]["update_percent_of_long_only"] for row in rows] == [50, 25, 100, 100]


def test_when_an_arm_first_reaches_the_best_of_long_only() -> None:
    def curve(accuracies: Sequence[float], samples: int) -> list[CurvePoint]:
        return [
            CurvePoint(
                when=str(step),
                step=step,
                tokens=100.0 * samples * step,
                samples={"long": samples * step},
                accuracy={"long": accuracy},
                interval={"long": None},
            )
            for step, accuracy in enumerate(accuracies)
        ]

    curves = {"r=0.5": curve([0.9, 0.5, 0.8, 0.85], 4), "r=1": curve([0.2, 0.6, 0.8, 0.7], 8)}
    (found,) = find_reached([arm(0.5), arm(1)], curves, "long")
    # Long-only is best at step 2 with 16 samples; the arm is as good at step 2, with 8. Step 0 is before training.
    assert (found.step, found.samples_percent, found.best) == (2, 50.0, 0.8)
    assert found.samples_percent_of_all == pytest.approx(100 * 8 / 24)
    assert "50.0 % of the long samples" in sentence(found)


class OneByOne:
    """Runs jobs as the real pool does, one process after the other, without Ray."""

    def __init__(self, kill_after: Callable[[Job], bool] = lambda job: False) -> None:
        self.interrupted = False
        self.jobs: list[Job] = []
        self._kill = kill_after

    @contextmanager
    def open(self, max_jobs: int | None) -> Iterator[OneByOne]:
        yield self

    def run(self, jobs: Sequence[Job]) -> list[Ended]:
        return [Ended(status=None, last_line="") if self.interrupted else self._one(job) for job in jobs]

    def _one(self, job: Job) -> Ended:
        self.jobs.append(job)
        command = [sys.executable, "-m", "hybrid_rl.studies.trial", *job.arguments]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=REPOSITORY, env=environment
            )
        while process.poll() is None:
            if self._kill(job):
                process.send_signal(signal.SIGKILL)
                self.interrupted = True
            time.sleep(0.02)
        assert process.stdin is not None
        process.stdin.close()
        lines = job.log.read_text().splitlines()
        return Ended(status=process.returncode, last_line=lines[-1] if lines else "")


def design(tmp_path: Path, *assignments: str, seeds: int = 1, equal: str = "steps") -> Design:
    overrides = [*SMALL, f"run.dir={tmp_path / 'study'}", *assignments]
    return make_design(DEFAULT_CONFIG, overrides, seeds, equal)  # type: ignore[arg-type]


def test_a_folder_of_another_ablation_is_refused_and_more_seeds_or_arms_are_not(tmp_path: Path) -> None:
    with folder.opened(design(tmp_path, "modes.long_ratio=0,1")):
        pass
    folder.check(design(tmp_path, "modes.long_ratio=0,1", seeds=5))
    with pytest.raises(RunFolderError, match=r"its arms are long_ratio=0 long_ratio=1, here they are"):
        folder.check(design(tmp_path, "modes.long_ratio=0,0.5"))
    longer = design(tmp_path, "modes.long_ratio=0,0.5,1")
    with folder.opened(longer), pytest.raises(RunFolderError, match="being made by another process"):
        folder.opened(longer).__enter__()
    with pytest.raises(RunFolderError, match=r"its arms are long_ratio=0 long_ratio=0.5 long_ratio=1, here they are"):
        folder.check(design(tmp_path, "modes.long_ratio=0,1"))  # it has come to stand for three
    with pytest.raises(RunFolderError, match=r"train.clip_low is null there and 0.3 here"):
        folder.check(design(tmp_path, "modes.long_ratio=0,0.5,1", "train.clip_low=0.3"))
    (tmp_path / "study" / folder.IDENTITY).unlink()
    (tmp_path / "study" / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="not that of an ablation"):
        folder.check(design(tmp_path, "modes.long_ratio=0,1"))


def test_small_models_train_side_by_side_with_a_thread_each_unless_the_config_says_otherwise() -> None:
    def settled(*overrides: str, jobs: int | None = None, small: bool = True, cores: int = 2) -> tuple[int | None, str]:
        cluster = settle(load_config(DEFAULT_CONFIG, overrides), jobs, small=small, cores=cores).cluster
        return cluster.threads_per_worker, cluster.executor

    assert settled() == settled(cores=16) == (1, "local")
    assert settled(small=False) == settled(small=False, cores=16) == (2, "ray")
    assert settled(small=False, cores=1) == (1, "ray")
    assert settled(jobs=2, cores=8) == (4, "local")
    assert settled(jobs=4, cores=2) == (1, "local")
    assert settled("cluster.threads_per_worker=3", jobs=2) == (3, "local")
    assert settled("cluster.executor=ray") == (1, "ray")
    assert settled("cluster.rollout_workers=2") == (1, "ray")


def test_the_default_model_is_small_and_an_arm_that_is_not_decides_for_all() -> None:
    small = prepare(load_config(DEFAULT_CONFIG))
    assert is_small([small])
    assert not is_small([small, replace(small, num_parameters=SMALL_MODEL + 1)])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_ablation_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    study = design(tmp_path, "modes.long_ratio=0.5,1", "evaluation.every_steps=1")
    second = study.folder / "long_ratio=1" / "seed_0"

    def half_done(job: Job) -> bool:
        metrics = second / "metrics.jsonl"
        return metrics.is_file() and len(metrics.read_text().splitlines()) == 2

    console = Console(file=io.StringIO())
    killed = OneByOne(half_done)
    with pytest.raises(Interrupted, match="same command"):
        ablate(study, killed.open, None, console)
    warm_ups = [job for job in killed.jobs if "--warm-up-only" in job.arguments]
    assert len(warm_ups) <= 1  # one a seed, or none where an earlier test has made it
    first = study.folder / "long_ratio=0.5" / "seed_0" / "summary.json"
    written = first.stat().st_mtime_ns
    again = OneByOne()
    ablate(study, again.open, None, console)
    assert [job.log.parent.name for job in again.jobs] == ["long_ratio=1"]
    assert first.stat().st_mtime_ns == written
    assert [json.loads(line)["step"] for line in (second / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    rows = json.loads((study.folder / "table.json").read_text())
    assert [row["arm"]["modes.long_ratio"] for row in rows] == [0.5, 1]
    assert set(rows[0]["accuracy"]) == {"short", "long"}
    assert rows[0]["tokens"]["update_percent_of_long_only"] < 100
    # One warm-up and the same items: before training the arms are the same policy.
    assert rows[0]["before"] == rows[1]["before"]
    page = (study.folder / "ablation.html").read_text()
    assert "<script" not in page and "default-src 'none'" in page
    assert (study.folder / "ablation.png").read_bytes().startswith(b"\x89PNG")
    idle = OneByOne()
    ablate(study, idle.open, None, console)
    assert not idle.jobs


def test_a_run_ends_with_the_step_that_uses_up_its_tokens(small_config: Callable[..., object], tmp_path: Path) -> None:
    import hybrid_rl

    config = small_config("run.max_update_tokens=1", "evaluation.before=false", "warmup=null")
    found = hybrid_rl.run(config)  # type: ignore[arg-type]
    assert found["steps"] == 1 and found["status"] == "completed"
    rows = [json.loads(line) for line in (tmp_path / "run" / "eval_items" / "after.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    for mode, figures in found["eval"]["after"].items():
        values = [row["accuracy"] for row in rows if row["mode"] == mode]
        assert math.isclose(sum(values) / len(values), figures["accuracy"])
