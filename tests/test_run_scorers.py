"""A whole run in which scorers hang, eat memory and die: each costs its limit and is counted, the rest is as ever."""

from __future__ import annotations

import json
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


def trained(folder: Path, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Metrics and samples of a run of two steps with that reward as its accuracy."""
    (folder / "mine.py").write_text(REWARD)
    part = json.dumps({"target": f"mine.py:{name}", "timeout_s": LIMIT_S, "max_error_share": 0.5})
    overrides = ["warmup=null", "run.steps=2", f"run.dir={folder / name}", f"search=[{folder}]"]
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
