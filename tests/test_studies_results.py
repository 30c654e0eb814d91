"""What is read back from the finished runs of an ablation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import DEFAULT_CONFIG, SMALL

from hybrid_rl.studies.design import Trial, make_design
from hybrid_rl.studies.results import read_outcomes


def finished(trial: Trial, rows: list[dict[str, float]]) -> None:
    """A run folder with these metrics and an evaluation in each step but the last."""
    entry = {"long": {"accuracy": 0.5, "tasks": {}}}
    files = {
        "config.yaml": "",
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "eval.jsonl": "".join(json.dumps({"step": row["step"], "eval": entry}) + "\n" for row in rows[:-1]),
        "eval_items/after.jsonl": "",
        "summary.json": json.dumps(
            {"status": "completed", "steps": len(rows), "eval": {"after": entry},
             "tokens": {"long": {"rollout": 1, "update": 1}}}
        ),
    }  # fmt: skip
    for name, content in files.items():
        (trial.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (trial.folder / name).write_text(content)


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ({"responses/long": 8}, [8, 16]),  # 4 prompts, half of the 4 responses to each in the mode
        ({}, [16, 32]),  # as runs of earlier versions were read: every prompt of a mode by all its responses
    ],
)
def test_samples_are_responses_and_not_prompts_times_the_size_of_a_draw(
    tmp_path: Path, counted: dict[str, float], expected: list[int]
) -> None:
    overrides = [*SMALL, f"run.dir={tmp_path / 'study'}", "train.responses_per_prompt=4", "modes.assign=paired",
                 "train.clip_low=0.1,0.2"]  # fmt: skip
    trial = next(make_design(DEFAULT_CONFIG, overrides, 1, "steps").trials())
    finished(trial, [{"step": step, "prompts/long": 4, "update_tokens/long": 10} | counted for step in (1, 2)])
    (outcome,) = read_outcomes([trial])[trial.arm.name]
    assert [point.samples["long"] for point in outcome.points] == expected
