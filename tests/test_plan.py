"""`hybrid-rl train --plan-only`: what a run would do and what is wrong with it, without weights or processes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import DEFAULT_CONFIG, REPOSITORY, SMALL
from other_models import save
from test_cli import COMMAND

import hybrid_rl
from hybrid_rl.build import plan_run
from hybrid_rl.config import load_config
from hybrid_rl.errors import ConfigError, RunFolderError
from hybrid_rl.run_folder import RunFolder

RELEASED = REPOSITORY.parent / "shared" / "fixtures" / "real_tokenizer"
PAPER = REPOSITORY / "configs" / "grpo_minicpmv45.yaml"


def plan_only(*arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, "train", *map(str, arguments), "--plan-only"]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL)


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released configs and tokenizer are not on this machine")
def test_the_config_for_the_released_weights_plans_without_them(tmp_path: Path) -> None:
    shutil.copytree(RELEASED, tmp_path / "MiniCPM-V-4_5")
    done = plan_only(PAPER, cwd=tmp_path)  # model.path of the config is looked up in the working directory too
    assert done.returncode == 0, done.stderr
    plan = {line[:12].strip(): line[13:] for line in done.stdout.splitlines()}
    # Rank 64 on q, o (4096 + 4096), k, v (4096 + 1024) and gate, up, down (4096 + 12288) of 36 layers.
    adapter = 36 * 64 * (2 * 8192 + 2 * 5120 + 3 * 16384)
    assert plan["parameters"].startswith("8,695,895,280, frozen") and f"{adapter:,}" in plan["parameters"]
    assert plan["step"].startswith("128 prompts x 8 responses = 1,024 responses")
    assert plan["mode long"].startswith("64 prompts a step, up to 8192 tokens a response, temperature 1,")
    assert plan["mode short"].startswith("64 prompts a step")
    assert "without its adapter as reference" in plan["workers"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["MiniCPM-V-4_5"]


def test_the_config_for_the_released_weights_has_the_settings_of_the_paper() -> None:
    """MiniCPM-V 4.5, arXiv 2509.18154, appendix A."""
    config = load_config(PAPER)
    train, kinds = config.train, config.modes.kinds
    assert (train.prompts_per_step, train.responses_per_prompt, train.optimizer.learning_rate) == (128, 8, 1e-6)
    assert train.kl_coefficient == 0 and set(config.modes.shares.values()) == {0.5}
    assert max(k.max_new_tokens for k in kinds.values()) == 8192 and {k.temperature for k in kinds.values()} == {1.0}
    assert len(PAPER.read_text().splitlines()) <= 40


def test_a_folder_without_weights_is_enough_for_the_plan_and_not_for_the_run(tmp_path: Path) -> None:
    folder = save("qwen2_5_vl", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    config = load_config(DEFAULT_CONFIG, [*SMALL, f"model.path={folder}", f"run.dir={tmp_path / 'run'}"])
    plan = dict(plan_run(config))
    assert plan["policy"] == f"{folder}, no warm-up"
    with pytest.raises(ConfigError, match="the weights cannot be loaded"):
        hybrid_rl.run(config)
    assert not (tmp_path / "run").exists()


def test_the_command_says_what_is_wrong_as_train_does(tmp_path: Path) -> None:
    done = plan_only(DEFAULT_CONFIG, "model.path=nowhere", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "hybrid-rl: nowhere has no config.json, so it is not a checkpoint folder; check model.path\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_exists_and_a_run_that_is_complete_are_refused(tmp_path: Path) -> None:
    overrides = [*SMALL, "warmup=null", "run.steps=1", "evaluation.before=false", "evaluation.after=false"]
    config = load_config(DEFAULT_CONFIG, [*overrides, f"run.dir={tmp_path / 'run'}"])
    assert dict(plan_run(config))["policy"].endswith("random weights, no warm-up")
    assert list(tmp_path.iterdir()) == []
    hybrid_rl.run(config)
    with pytest.raises(RunFolderError, match="exists already"):
        plan_run(config)
    folder = RunFolder.existing(tmp_path / "run")
    with pytest.raises(RunFolderError, match="is complete"):
        plan_run(folder.config(), folder)
