"""A whole run in which scorers hang, eat memory and die: each costs its limit and is counted, the rest is as ever."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import DEFAULT_CONFIG, SMALL

import hybrid_rl

LIMIT_S = 0.3
BAD = {("2", 0): "sleep", ("2", 1): "eat", ("2", 2): "die"}
"""What a reward does on a response of the second step, by step and number in its group."""

REWARD = f"""\
import os, time

BAD = {BAD!r}

def calm(ids, prompt):
    return sum(ids) % 7 / 7

def wild(ids, prompt, group, index, mode):
    what = BAD.get((group.rpartition("@")[2].split(".")[0], index)) if mode == "long" else None
    if what == "sleep":
        time.sleep(600)
    if what == "eat":
        return float(len(bytearray(64 << 30)))
    if what == "die":
        os._exit(3)
    return calm(ids, prompt)
"""


VICTIM = """
from pathlib import Path

def waits(ids, prompt, group, index, mode):
    times = {0: 2, 1: 1}.get(index, 0) if mode == "long" else 0
    deaths = Path(__file__).parent / "deaths"
    mine = f"{group.replace('/', '_')}_{index}"
    if len(list(deaths.glob(mine + ".*"))) < times:
        (deaths / f"{mine}.{os.getpid()}").touch()
        time.sleep(600)
    return calm(ids, prompt)
"""
"""In long mode it waits for its death: twice on the first response of a group, once on the second."""


def trained(
    folder: Path, name: str, *, limit_s: float = LIMIT_S, steps: int = 2
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Metrics and samples of a run with that reward as its accuracy."""
    (folder / "mine.py").write_text(REWARD + VICTIM)
    part = json.dumps({"target": f"mine.py:{name}", "timeout_s": limit_s, "max_error_share": 0.5})
    overrides = ["warmup=null", f"run.steps={steps}", f"run.dir={folder / name}", f"search=[{folder}]"]
    overrides += [f"rewards.accuracy={part}", "evaluation.before=false", "evaluation.after=false"]
    config = hybrid_rl.load_config(DEFAULT_CONFIG, [*SMALL, *overrides])
    assert hybrid_rl.run(config)["status"] == "completed"
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], samples(folder / name)


def samples(run: Path) -> list[dict[str, Any]]:
    """All responses of a run, in their order."""
    files = sorted((run / "rollouts").glob("step_*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_bad_scorers_in_the_middle_of_a_run_cost_their_limits_and_no_other_score(tmp_path: Path) -> None:
    calm_metrics, calm = trained(tmp_path, "calm")
    wild_metrics, wild = trained(tmp_path, "wild")

    spoiled = [row["outcome"] for row in wild if row["outcome"] != "ok"]
    assert sorted(spoiled) == ["error", "error", "timeout", "timeout", "timeout", "timeout"]
    assert len(wild) == len(calm)
    for bad, good in zip(wild, calm, strict=True):
        if bad["outcome"] == "ok":
            assert (bad["ids"], bad["reward"], bad["parts"]) == (good["ids"], good["reward"], good["parts"])

    first, second = wild_metrics
    assert first["outcome/accuracy/timeout/long"] == first["outcome/accuracy/error/long"] == 0
    assert (second["outcome/accuracy/timeout/long"], second["outcome/accuracy/error/long"]) == (4, 2)
    assert second["outcome/accuracy/timeout/short"] == second["outcome/accuracy/error/short"] == 0
    assert sum(row["outcome/accuracy/timeout/long"] for row in calm_metrics) == 0
    assert second["part_ms_max/accuracy/long"] < 1000 * (LIMIT_S + 1)


class Killer(threading.Thread):
    """Kills every process that has left its number in a folder, as the kernel does when memory is short."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.killed, self.ended = folder, set[Path](), threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            for path in set(self.folder.iterdir()) - self.killed:
                self.killed.add(path)
                os.kill(int(path.suffix[1:]), signal.SIGKILL)


@pytest.mark.slow
def test_scorers_that_are_killed_from_outside_cost_no_score_but_that_of_a_response_that_kills_twice(
    tmp_path: Path,
) -> None:
    _, calm = trained(tmp_path, "calm", steps=1)
    (tmp_path / "deaths").mkdir()
    killer = Killer(tmp_path / "deaths")
    killer.start()
    began = time.monotonic()
    (metrics,), killed = trained(tmp_path, "waits", limit_s=300, steps=1)
    killer.ended.set()
    assert time.monotonic() - began < 250, "deaths are noticed, not waited for"

    assert len(killer.killed) == 2 * 2 + 2 * 1, "two groups think; the first response of each costs two, the second one"
    assert len(killed) == len(calm)
    lost = [row for row in killed if row["outcome"] != "ok"]
    assert [(row["outcome"], row["index"], row["mode"]) for row in lost] == [("error", 0, "long")] * 2
    for row, good in zip(killed, calm, strict=True):
        if row["outcome"] == "ok":
            assert (row["ids"], row["reward"], row["parts"]) == (good["ids"], good["reward"], good["parts"])
    assert metrics["outcome/accuracy/error/long"] == 2 and metrics["outcome/accuracy/error/short"] == 0
