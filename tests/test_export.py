"""`hybrid-rl export`: a folder that computes what the policy computed, for us and for others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL
from other_models import save
from test_cli import COMMAND

import hybrid_rl
from hybrid_rl.config import load_config
from hybrid_rl.errors import ConfigError, RunFolderError
from hybrid_rl.exporting import export, with_both_spellings
from hybrid_rl.policy import load_policy
from hybrid_rl.quiet import quiet_transformers
from hybrid_rl.saved import Saved, open_saved

QUIET = ["evaluation.before=false", "evaluation.after=false", "run.steps=2", "train.optimizer.learning_rate=0.01"]
REMOTE = "raise RuntimeError('this file is copied, never run')\n"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder as upstream releases one: keys of transformers 4, python files, an auto_map."""
    quiet_transformers()
    from model import tiny_minicpmv

    folder = tmp_path_factory.mktemp("released")
    model, processor = tiny_minicpmv(7, **load_config(DEFAULT_CONFIG, SMALL).model.args)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_minicpmv.MiniCPMV"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_minicpmv.py").write_text(REMOTE)
    (folder / "README.md").write_text("another model")
    return folder


@pytest.fixture(scope="module")
def adapter_run(tmp_path_factory: pytest.TempPathFactory, released: Path) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "run"
    overrides = [f"model.path={released}", "model.lora={rank: 4}", f"run.dir={folder}"]
    hybrid_rl.run(load_config(DEFAULT_CONFIG, [*SMALL, *QUIET, *overrides]))
    return folder


def logits_of(saved: Saved, folder: Path | None = None) -> torch.Tensor:
    """Logits of the checkpoint, or of an exported folder given as `model.path`."""
    config = saved.config
    if folder is not None:
        config = config.model_copy(
            update={"model": config.model.model_copy(update={"path": str(folder), "lora": None})}
        )
    checkpoint = saved.checkpoint if folder is None else None
    policy = load_policy(config.model, config.modes, seed=0, search=config.search, checkpoint=checkpoint)
    with torch.inference_mode():
        logits: torch.Tensor = policy.model(input_ids=torch.arange(30)[None]).logits
    return logits


def test_a_merged_folder_computes_what_base_and_adapter_computed(
    adapter_run: Path, released: Path, tmp_path: Path
) -> None:
    saved = open_saved(adapter_run)
    export(saved, tmp_path / "out")
    ours, theirs = logits_of(saved), logits_of(saved, tmp_path / "out")
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert not torch.allclose(ours, logits_of(saved, released), atol=1e-2)
    assert not list((tmp_path / "out").glob("adapter*"))


def test_what_upstream_needs_is_copied_and_not_run(adapter_run: Path, released: Path, tmp_path: Path) -> None:
    found = export(open_saved(adapter_run), tmp_path / "out")
    assert found.note is None
    assert (tmp_path / "out" / "modeling_minicpmv.py").read_text() == REMOTE
    assert not (tmp_path / "out" / "README.md").exists()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["auto_map"] == {"AutoModel": "modeling_minicpmv.MiniCPMV"}
    assert config["torch_dtype"] == config["dtype"] == "float32"
    for path in released.iterdir():
        if path.suffix not in (".safetensors", ".md") and path.name != "config.json":
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_adapter_alone_is_a_peft_folder(adapter_run: Path, released: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    from model import MiniCPMVForConditionalGeneration

    saved = open_saved(adapter_run)
    export(saved, tmp_path / "out", adapter_only=True)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    model = PeftModel.from_pretrained(MiniCPMVForConditionalGeneration.from_pretrained(released), tmp_path / "out")
    with torch.inference_mode():
        logits = model.eval()(input_ids=torch.arange(30)[None]).logits
    torch.testing.assert_close(logits, logits_of(saved), atol=1e-6, rtol=0)


def test_without_auto_map_files_it_says_what_cannot_load_it(tmp_path: Path) -> None:
    overrides = [*SMALL, *QUIET, f"run.dir={tmp_path / 'run'}", "warmup=null", "run.steps=1"]
    hybrid_rl.run(load_config(DEFAULT_CONFIG, overrides))
    done = subprocess.run(
        [COMMAND, "export", tmp_path / "run", tmp_path / "out"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("note: hybrid-rl loads this folder, but upstream's code and vLLM do not: ")
    assert "brought no auto_map files" in lines[1]
    saved = open_saved(tmp_path / "run")
    assert torch.equal(logits_of(saved), logits_of(saved, tmp_path / "out"))
    with pytest.raises(ConfigError, match="without the flag"):
        export(saved, tmp_path / "other", adapter_only=True)


def test_a_model_of_transformers_needs_no_note_and_old_readers_find_their_keys(tmp_path: Path) -> None:
    source = save("qwen3", tmp_path / "qwen3")
    rows = [json.dumps({"prompt": f"{i}?", "gold": "1", "task": "sum"}) for i in range(20)]
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    data = 'data.sources={sum: {target: "hybrid_rl.data.files:FileSource", args: {path: %s}}}' % (tmp_path / "p.jsonl")
    overrides = [*SMALL, *QUIET, data, f"model.path={source}", f"run.dir={tmp_path / 'run'}"]
    hybrid_rl.run(load_config(DEFAULT_CONFIG, overrides))
    saved = open_saved(tmp_path / "run")
    assert export(saved, tmp_path / "out").note is None
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["rope_scaling"] is None and config["torch_dtype"] == "float32"
    assert torch.equal(logits_of(saved), logits_of(saved, tmp_path / "out"))


def test_both_spellings_of_a_scaled_inner_config() -> None:
    rope = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}
    found = with_both_spellings({"dtype": "bfloat16", "text_config": {"rope_parameters": rope}, "vision_config": None})
    assert found["torch_dtype"] == "bfloat16"
    assert found["text_config"]["rope_theta"] == 1e6
    assert found["text_config"]["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0}
    # What an old config says already stays.
    assert with_both_spellings({"rope_theta": 5.0, "rope_parameters": rope})["rope_theta"] == 5.0


def test_a_place_that_cannot_be_written_is_refused(adapter_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "out", Path("/proc/hybrid/out")):
        with pytest.raises(RunFolderError, match="cannot be written"):
            export(open_saved(adapter_run), place)


def test_a_folder_with_something_in_it_is_refused(adapter_run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(RunFolderError, match="not empty"):
        export(open_saved(adapter_run), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(open_saved(adapter_run), tmp_path / "empty", adapter_only=True)
    assert len(list((tmp_path / "empty").iterdir())) == 2
