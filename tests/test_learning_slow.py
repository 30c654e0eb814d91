"""The main job: the shipped config learns in both modes in half of its steps, and what it wrote down holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import DEFAULT_CONFIG

COMMAND = str(Path(sys.executable).with_name("hybrid-rl"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("main") / "run"
    command = [COMMAND, "train", str(DEFAULT_CONFIG), f"run.dir={run}", "run.steps=120"]
    subprocess.run(command, check=True, timeout=2400)
    return run


def summary_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_both_modes_get_better_at_the_task_and_not_only_at_the_form(finished: Path) -> None:
    summary = summary_of(finished)
    assert summary["status"] == "completed"
    assert 1_000_000 <= summary["policy"]["parameters"] <= 3_000_000
    for mode in ("short", "long"):
        before, after = summary["eval"]["before"][mode], summary["eval"]["after"][mode]
        assert before["n"] == after["n"] >= 512
        # Usually about 20 points; the bound leaves room for other CPUs, which round differently.
        gain = after["accuracy"] - before["accuracy"]
        assert gain >= 0.10, (mode, gain)
        skill = after["accuracy_when_well_formed"] - before["accuracy_when_well_formed"]
        assert skill >= gain / 2, (mode, skill)
        assert before["leak_rate"] <= 0.10 and after["leak_rate"] <= 0.01, mode


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fresh_evaluation_agrees_with_the_summary(finished: Path) -> None:
    found = subprocess.run([COMMAND, "eval", str(finished), "--json"], check=True, capture_output=True, text=True)
    fresh, recorded = json.loads(found.stdout), summary_of(finished)["eval"]["after"]
    for mode in recorded:
        assert fresh[mode]["accuracy"] == pytest.approx(recorded[mode]["accuracy"], abs=0.043)
