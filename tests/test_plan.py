"""`hybrid-rl train --plan-only`: what a run would do and what is wrong with it, without weights or processes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEFAULT_CONFIG, REPOSITORY, SMALL
from other_models import save
from safetensors.torch import load_file, save_file
from test_cli import COMMAND

import hybrid_rl
from hybrid_rl.build import plan_run
from hybrid_rl.config import load_config
from hybrid_rl.errors import ConfigError, RunFolderError
from hybrid_rl.policy import load_policy
from hybrid_rl.pretrained import describe_folder, load_folder
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


def test_frozen_parts_are_not_counted_as_trained(tmp_path: Path) -> None:
    frozen = "train.optimizer.learning_rate_scale={vision_tower: 0, resampler: 0, embeddings: 0}"
    config = load_config(DEFAULT_CONFIG, [*SMALL, frozen, f"run.dir={tmp_path / 'run'}"])
    policy = load_policy(config.model, config.modes, seed=0, search=config.search)
    sizes = {name: p.numel() for name, p in policy.model.named_parameters()}
    outside = ("vpm.", "resampler.", "llm.model.embed_tokens.", "llm.lm_head.")
    trained = sum(size for name, size in sizes.items() if not name.startswith(outside))
    assert dict(plan_run(config))["parameters"] == f"{sum(sizes.values()):,}, of which {trained:,} are trained"


def test_a_scale_for_a_part_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    folder = save("qwen3", tmp_path / "model")
    scale = "train.optimizer.learning_rate_scale={resampler: 0.1}"
    config = load_config(DEFAULT_CONFIG, [*SMALL, scale, f"model.path={folder}", f"run.dir={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match=r"^train\.optimizer\..*: the model has no parameters of part 'resampler'"):
        plan_run(config)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.json", "[]", "cannot be loaded as a checkpoint"),
        ("config.json", '{"model_type": "bert", "architectures": ["BertModel"]}', "bert do not generate text"),
        ("config.json", '{"model_type": "clip"}', "clip do not generate text"),
        ("config.json", '{"model_type": "t5"}', "t5 have an encoder for the prompt"),
        ("config.json", '{"model_type": "qwen3", "hidden_size": "x"}', "hidden_size"),
        ("config.json", '{"model_type": "qwen3", "hidden_size": -5}', "config.json describes no model"),
        ("generation_config.json", '{"eos', "cannot be loaded as a checkpoint"),
        ("tokenizer.json", None, "cannot be loaded as a checkpoint"),
        ("chat_template.jinja", None, r"it has no chat template, .*; add a chat_template\.jinja"),
    ],
)
def test_a_folder_that_is_no_policy_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: str | None, expected: str
) -> None:
    folder = save("qwen3", tmp_path / "model")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    config = load_config(DEFAULT_CONFIG, [*SMALL, f"model.path={folder}", f"run.dir={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match=expected) as found:
        plan_run(config)
    assert str(folder) in str(found.value) and "\n" not in str(found.value)


def test_a_minicpmv_folder_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    """Its tokenizer class loads without a file, with an empty vocabulary: every prompt would be empty."""
    from model import tiny_minicpmv

    model, processor = tiny_minicpmv(7, **load_config(DEFAULT_CONFIG, SMALL).model.args)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ConfigError, match="has no tokenizer"):
        describe_folder(str(tmp_path))


def test_a_tensor_that_is_not_there_is_not_begun_at_random(tmp_path: Path) -> None:
    folder = save("qwen3", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"there is no tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        load_folder(str(folder), torch.float32)


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
