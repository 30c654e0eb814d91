"""Score, length and entropy over the steps: which steps count, and that arms are not mixed up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hybrid_rl.studies.chart import steps_chart
from hybrid_rl.studies.curves import as_json
from hybrid_rl.studies.design import make_design
from hybrid_rl.studies.page import render
from hybrid_rl.studies.training import Series, read_series, training_curves


def rows(*scores: float, silent: int = 0) -> list[dict[str, float]]:
    """Metrics of one mode; in step `silent` no response was in it."""
    return [
        {
            "step": step,
            "prompts/long": 0 if step == silent else 4,
            "accuracy/long": score,
            "tokens/long": 10 * score,
            "entropy/long": 1 - score,
        }
        for step, score in enumerate(scores, start=1)
    ]


def series(*scores: float, silent: int = 0) -> Series:
    return read_series(rows(*scores, silent=silent), ["short", "long"])


def test_the_mean_over_seeds_at_the_steps_that_all_have() -> None:
    curves = training_curves({"a": [series(0.2, 0.4, 0.6), series(0.4, 0.6, silent=1)], "b": [series(0.9)]})
    (point,) = curves["a"]["score"]["long"]
    assert (point.step, point.mean) == (2, pytest.approx(0.5))
    # Student with one degree of freedom: t = 12.706; 0.5 -+ 12.706 * 0.1
    assert point.interval == pytest.approx((0.5 - 1.2706, 0.5 + 1.2706), abs=1e-3)
    assert curves["a"]["length"]["long"][0].mean == pytest.approx(5)
    assert curves["a"]["entropy"]["long"][0].mean == pytest.approx(0.5)
    assert curves["b"]["score"]["long"][0].mean == 0.9 and curves["b"]["score"]["long"][0].interval is None
    assert set(curves["a"]["score"]) == {"long"}, "nothing was sampled in the other mode"


def test_they_are_in_the_json_and_on_the_page(tmp_path: Path) -> None:
    keys = ["rewards.probability.weight=0,1", f"run.dir={tmp_path / 'out'}"]
    design = make_design(REPOSITORY / "configs" / "grpo_probability_cpu.yaml", keys, 1, "steps")
    curves = training_curves({arm.name: [series(0.1 + i, 0.2)] for i, arm in enumerate(design.arms)})
    assert json.loads(json.dumps(as_json({}, [], curves)))["training"][design.arms[1].name]["score"]["long"][0] == {
        "step": 1,
        "mean": 1.1,
        "interval": None,
    }
    accuracy = {"long": {"mean": 0.5, "low": None, "high": None, "per_seed": [0.5]}}
    tokens = {"rollout": 9.0, "update": 9.0, "update_percent_of_long_only": None}
    table = [
        {"name": arm.name, "arm": dict(arm.values), "seeds": [0], "before": {}, "accuracy": accuracy, "tasks": {},
         "tokens": tokens, "versus": {}}
        for arm in design.arms
    ]  # fmt: skip
    page = render(design, table, {}, curves, [])
    for title in ("score, long mode", "length, long mode", "entropy, long mode"):
        assert page.count(f"<h3>{title}</h3>") == 1
    assert steps_chart("length", "long", table, curves) in page
    assert "over the steps" not in render(design, table, {}, {}, [])


@pytest.mark.parametrize(
    ("config", "key", "values"),
    [
        ("grpo_probability_cpu.yaml", "rewards.probability.weight", [0, 1]),
        ("grpo_preference_cpu.yaml", "rewards.preference.args.on", ["answer", "whole_text"]),
    ],
)
def test_the_two_comparisons_vary_one_key(config: str, key: str, values: list[object]) -> None:
    design = make_design(REPOSITORY / "configs" / config, [f"{key}={','.join(map(str, values))}"], 2, "steps")
    assert [arm.values for arm in design.arms] == [{key: value} for value in values]
    first, second = (config.model_dump(mode="json") for config in design.configs)
    part = key.split(".")[1]
    assert first["rewards"].pop(part) != second["rewards"].pop(part)
    first["run"].pop("dir"), second["run"].pop("dir")
    assert first == second
