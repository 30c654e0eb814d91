"""Whole runs with every way of dealing modes, estimator and scheme: they train, and say what they did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybrid_rl.config import Config
from hybrid_rl.errors import UserError
from hybrid_rl.preflight import prepare
from hybrid_rl.train import run

QUICK = ("run.steps=2", "evaluation.before=false", "evaluation.prompts_per_mode=2", "warmup.steps=3")
CHOICE = (
    "modes.long_ratio=null",
    "modes.kinds={short: {max_new_tokens: 12, mode_token: '</think>', share: 0.5}, "
    "long: {max_new_tokens: 24, mode_token: '<think>', share: 0.5}, auto: {max_new_tokens: 24, share: 0}}",
)
AUTO = ("modes.kinds.short.share=0", "modes.kinds.long.share=0", "modes.kinds.auto.share=1")


def _slow(*overrides: str) -> Any:
    return pytest.param(overrides, marks=pytest.mark.slow)


def metrics(config: Config) -> list[dict[str, Any]]:
    run(config)
    lines = (Path(config.run.dir or "") / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_a_schedule_reaches_the_run(small_config: Callable[..., Config]) -> None:
    rows = metrics(small_config(*QUICK, "modes.long_ratio={schedule: linear, start: 0.25, end: 1.0, over_steps: 2}"))
    assert [row["share_asked/long"] for row in rows] == [0.25, 1.0]
    assert [row["share/long"] for row in rows] == [0.25, 1.0]
    assert rows[0]["prompts/short"] == 3 and "prompts/short" not in rows[1]


def test_a_row_far_down_that_names_no_mode_is_refused_before_the_run(
    small_config: Callable[..., Config], tmp_path: Path
) -> None:
    rows = [{"prompt": f"Say {i}.", "gold": str(i), "mode": "long" if i < 150 else "lnog"} for i in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = small_config(
        *QUICK, "warmup=null", "modes.assign=column", "modes.long_ratio=null", "evaluation.prompts_per_mode=2",
        "data.sources={rows: {target: 'hybrid_rl.data.files:FileSource'}}",
        f"data.sources.rows.args.path={tmp_path / 'rows.jsonl'}",
        "rewards={accuracy: {target: 'rewards.ocr_match:ocr_match'}}",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"of source rows has the mode 'lnog', .*did you mean 'long'"):
        prepare(config)


@pytest.mark.parametrize(
    "overrides",
    [
        ("modes.assign=paired", "train.baseline=bpo", "train.estimator=gspo"),
        _slow("modes.assign=per_rollout", "train.estimator=rloo", "modes.kinds.long.truncation=mask"),
        _slow("train.aggregate=normalize_then_sum", "train.estimator=cispo", "modes.kinds.long.truncation=penalise"),
        (*CHOICE, "modes.assign=paired", "train.baseline=hgpo", "modes.forced_tokens=importance"),
        (*CHOICE, *AUTO, "train.baseline=thinkless", "train.estimator=dr_grpo"),
        _slow(*CHOICE, *AUTO, "train.baseline=ada_grpo", "train.estimator=dapo", "train.kl_coefficient=0.01"),
    ],
    ids=["bpo-gspo", "per_rollout-rloo", "gdpo-cispo", "hgpo", "thinkless", "ada_grpo"],
)
def test_a_run_with_a_scheme(small_config: Callable[..., Config], overrides: tuple[str, ...]) -> None:
    rows = metrics(small_config(*QUICK, *overrides))
    assert len(rows) == 2
    assert all(row["loss"] == row["loss"] and row["ratio_deviation"] < 1e-3 for row in rows)


def test_evaluation_says_how_well_the_model_chooses(small_config: Callable[..., Config]) -> None:
    config = small_config(*QUICK, *CHOICE, *AUTO)
    found = run(config)["eval"]["after"]
    assert 0 <= found["auto"]["hybrid_accuracy"] <= 1 and 0 <= found["auto"]["thinks"] <= 1
    assert "hybrid_accuracy" not in found["long"]


def test_what_does_not_fit_is_refused_before_a_folder_exists(small_config: Callable[..., Config]) -> None:
    config = small_config("train.baseline=joint")
    with pytest.raises(UserError, match="compares responses over modes"):
        run(config)
    assert not Path(config.run.dir or "").exists()
