"""The golden check: passes on the shared set, and one wrong value anywhere makes it fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.ledger import Ledger
from golden_check import check_set, main, table
from safetensors.torch import load_file, save_file

SHARED = Path(__file__).parents[2] / "shared" / "fixtures"
GOLDEN = SHARED / "minicpmv" / "dev"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")

SCENARIO = "full_batch_video_last.safetensors"
BESIDE = ("position_buckets.safetensors", "tiny_tokenizer.json")

QUICK = {
    "vision_tower.safetensors": "ragged.last_hidden_state",
    "resampler.safetensors": "video_far.out",
    "pixels.safetensors": "d.pixel_u8.1",
    "slicing_sweep.safetensors": "sweep",
    "processor.safetensors": "two_images.input_ids",
    "position_buckets.safetensors": "bucket_table",
    SCENARIO: "full.next_token_logprob",
}
"""A tensor of expected values in every kind of file."""


def linked_copy(folder: Path) -> Path:
    """A set directory of links, in which single files can be replaced."""
    root = folder / "minicpmv" / GOLDEN.name
    root.mkdir(parents=True)
    (folder / "real_tokenizer").symlink_to(SHARED / "real_tokenizer")
    for path in GOLDEN.iterdir():
        (root / path.name).symlink_to(path)
    for name in BESIDE:
        (root.parent / name).symlink_to(GOLDEN.parent / name)
    return root


def replaced(root: Path, file: str) -> Path:
    """The path of a file of the copy, which is no link any more."""
    path = (root.parent if file in BESIDE else root) / file
    path.unlink()
    return path


def spoil_tensor(root: Path, file: str, name: str) -> None:
    """Change the first value of one tensor (the last of the sweep, whose rows begin with inputs)."""
    source = (GOLDEN.parent if file in BESIDE else GOLDEN) / file
    tensors = load_file(source)
    flat = tensors[name].flatten()
    place = -1 if name == "sweep" else 0
    flat[place] = ~flat[place] if flat.dtype == torch.bool else flat[place] + 1
    tensors[name] = flat.reshape(tensors[name].shape)
    metadata = {"columns": COLUMNS} if file == "slicing_sweep.safetensors" else None
    save_file(tensors, replaced(root, file), metadata=metadata)


COLUMNS = "w,h,max_slice_nums,grid_cols,grid_rows(0,0=none),source_w,source_h,refine_w,refine_h(0=none)"


def spoil_json(root: Path, file: str, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads((GOLDEN / file).read_text())
    change(content)
    replaced(root, file).write_text(json.dumps(content))


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    yield linked_copy(tmp_path)
    shutil.rmtree(tmp_path)


@needs_golden
def test_intact_files_pass(copy: Path) -> None:
    ledger = check_set(copy, only={*QUICK, "processor.json", "slicing.json"} - {"processor.safetensors"})
    assert ledger.ok, table(ledger.report())
    assert len(ledger.comparisons) > 1000
    assert all(case["tolerance"] <= 1e-4 or "pixels" in case["quantity"] for case in ledger.report()["cases"])


@needs_golden
@pytest.mark.parametrize(("file", "name"), QUICK.items())
def test_one_wrong_tensor_value_fails(copy: Path, file: str, name: str) -> None:
    spoil_tensor(copy, file, name)
    ledger = check_set(copy, only={file})
    wrong = [case for case in ledger.comparisons if not case.ok]
    assert wrong and not ledger.ok
    assert {case.file for case in wrong} <= {file, "processor.json"}


@needs_golden
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("slicing.json", lambda c: c["rows"][7].update(n_tokens_real_tokenizer=1)),
        ("slicing.json", lambda c: c["rows"][9].update(placeholder=c["rows"][9]["placeholder"] + " ")),
        ("processor.json", lambda c: c["chat_template"][-1].update(text="x")),
        ("processor.json", lambda c: c["encodings"][3]["ids"].append(5)),
        ("processor.json", lambda c: c["cases"][3]["image_bound"][0][0].reverse()),
        ("config.json", lambda c: c.update(rms_norm_eps=1e-5)),
    ],
)
def test_one_wrong_json_value_fails(copy: Path, file: str, change: Callable[[Any], None]) -> None:
    spoil_json(copy, file, change)
    assert not check_set(copy, only={file}).ok


@needs_golden
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("vision_tower.safetensors", lambda f: f["cases"][0]["sizes"].reverse()),
        ("resampler.safetensors", lambda f: f["cases"][2]["temporal_ids"][2].__setitem__(0, 60)),
        ("pixels.safetensors", lambda f: f["cases"][1].update(wh=[300, 41])),
        (SCENARIO, lambda f: f["scenario"]["grad_norm_per_parameter"].update({"resampler.proj": 0.1})),
        ("model.safetensors", lambda f: f.update(n_params=1)),
    ],
)
def test_one_wrong_value_of_the_index_fails(copy: Path, file: str, change: Callable[[Any], None]) -> None:
    spoil_json(copy, "index.json", lambda content: change(content["files"][file]))
    assert not check_set(copy, only={file}).ok


@needs_golden
def test_a_wrong_type_in_the_index_fails(copy: Path) -> None:
    def widen(content: Any) -> None:
        content["tensor_shapes"]["full_text_only.safetensors"]["loss"][0] = "F64"

    spoil_json(copy, "index.json", widen)
    wrong = [case for case in check_set(copy, only={"full_text_only.safetensors"}).comparisons if not case.ok]
    assert [case.quantity for case in wrong] == ["types and shapes"]


@needs_golden
@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["model"]["vocab"].update({"^": c["model"]["vocab"]["^"] + 1}),
        lambda c: c["added_tokens"][7].update(id=c["added_tokens"][7]["id"] + 1),
        lambda c: c["added_tokens"][30].update(content="<ref>"),
        lambda c: c["added_tokens"][38].update(special=False),
    ],
)
def test_one_wrong_token_fails(copy: Path, change: Callable[[Any], None]) -> None:
    """Also of tokens that no scenario writes."""
    content = json.loads((GOLDEN.parent / "tiny_tokenizer.json").read_text())
    change(content)
    replaced(copy, "tiny_tokenizer.json").write_text(json.dumps(content))
    assert not check_set(copy, only={"none"}).ok


@needs_golden
def test_buckets_are_those_of_the_released_table(copy: Path) -> None:
    """A set may have a tower with a smaller table of positions; the file beside it stays as it is."""
    spoil_json(copy, "config.json", lambda content: content["vision_config"].update(image_size=448))
    ledger = check_set(copy, only={"position_buckets.safetensors"})
    buckets = [case for case in ledger.comparisons if case.file == "position_buckets.safetensors"]
    assert len(buckets) == 7 and all(case.ok for case in buckets)


@needs_golden
@pytest.mark.parametrize(
    ("file", "kept_bytes", "lost"),
    [
        ("model.safetensors", None, "resampler.safetensors"),
        ("model.safetensors", 999, "resampler.safetensors"),
        ("resampler.safetensors", None, "resampler.safetensors"),
        ("resampler.safetensors", 999, "resampler.safetensors"),
        ("position_buckets.safetensors", 999, "position_buckets.safetensors"),
    ],
)
def test_a_damaged_file_is_not_run_and_the_others_are(copy: Path, file: str, kept_bytes: int | None, lost: str) -> None:
    path = replaced(copy, file)
    if kept_bytes is not None:
        path.write_bytes(((GOLDEN.parent if file in BESIDE else GOLDEN) / file).read_bytes()[:kept_bytes])
    ledger = check_set(copy, only={"resampler.safetensors", "position_buckets.safetensors", "video_sampling.json"})
    first = ledger.not_run[0]
    assert (first["file"], first["case"]) == (lost, "all") and file in first["why"]
    assert {skip["file"] for skip in ledger.not_run} == {lost} and not ledger.ok
    assert any(case.file == "video_sampling.json" and case.ok for case in ledger.comparisons)


@needs_golden
def test_one_wrong_weight_fails(copy: Path) -> None:
    tensors = load_file(GOLDEN / "model.safetensors")
    tensors["llm.model.norm.weight"][0] += 1
    save_file(tensors, replaced(copy, "model.safetensors"), metadata={"format": "pt"})
    ledger = check_set(copy, only={"full_text_only.safetensors"})
    assert "logits" in {case.quantity for case in ledger.comparisons if not case.ok}


@needs_golden
def test_what_nobody_compares_is_not_run(copy: Path) -> None:
    tensors = load_file(GOLDEN / "resampler.safetensors") | {"new_case.out": torch.zeros(2)}
    save_file(tensors, replaced(copy, "resampler.safetensors"))
    spoil_json(copy, "index.json", lambda content: content["files"].update({"new_kind.json": {}}))
    ledger = check_set(copy, only={"resampler.safetensors", "new_kind.json"})
    assert [(skip["file"], skip["case"]) for skip in ledger.not_run] == [
        ("new_kind.json", "all"),
        ("resampler.safetensors", "new_case.out"),
    ]
    assert not ledger.ok


@needs_golden
def test_a_case_that_raises_fails_and_the_others_go_on(copy: Path) -> None:
    def forget_a_frame(content: Any) -> None:
        content["files"]["resampler.safetensors"]["cases"][2]["temporal_ids"][1].pop()

    spoil_json(copy, "index.json", forget_a_frame)
    ledger = check_set(copy, only={"resampler.safetensors"})
    failed = [case for case in ledger.comparisons if not case.ok]
    assert [(case.case, case.max_error) for case in failed] == [("video_ragged", None)]
    assert "temporal ids describe" in failed[0].quantity
    assert any(case.case == "big_grid" and case.ok for case in ledger.comparisons)
    json.loads(json.dumps(ledger.report(), allow_nan=False))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a directory"), ({}, "index.json is missing"), ({"index.json": "{"}, "is no JSON file")],
)
def test_a_directory_that_is_no_set_is_one_sentence(
    tmp_path: Path, content: dict[str, str] | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    if content is not None:
        root.mkdir()
        for name, text in content.items():
            (root / name).write_text(text)
    assert main([str(root)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_errors_are_relative_with_a_floor() -> None:
    ledger = Ledger()
    ledger.relative("large", [1000.05], [1000.0], 1e-4, 1e-4)
    ledger.relative("small", [2e-4], [1.5e-4], 1e-4, 1e-4)
    ledger.relative("too far", [1.0], [1.0002], 1e-4, 1e-4)
    ledger.close("not a number", [float("nan")], [1.0], 1e-4)
    assert [case.ok for case in ledger.comparisons] == [True, True, False, False]
    assert ledger.comparisons[0].max_error == pytest.approx(5e-5)


@needs_golden
@pytest.mark.slow
def test_the_command_passes_on_the_whole_set() -> None:
    """The command as a user gives it, in a process of its own."""
    program = [sys.executable, str(Path(__file__).parent / "golden_check.py"), str(GOLDEN), "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert all(case["ok"] for case in report["cases"])
    assert done.returncode == 0 and not report["not_run"] and done.stderr == ""


@needs_golden
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_any_wrong_tensor_fails(tmp_path: Path) -> None:
    """Every tensor of every file but weights and source pictures, one at a time."""
    for file in sorted(path.name for path in GOLDEN.glob("*.safetensors")):
        if file == "model.safetensors" or (file.startswith("full_") and file != SCENARIO):
            continue
        for name, tensor in load_file(GOLDEN / file).items():
            # Inputs are no expected values: what is computed from them moves along, or too little.
            if file == "processor.safetensors" and not name.startswith("batch_leftpad."):
                continue  # one call is like another, and each run of all of them takes seconds
            if name.endswith((".image", ".x", ".pixel_values")) or name.startswith("image.") or not len(tensor):
                continue
            root = linked_copy(tmp_path / "copy")
            spoil_tensor(root, file, name)
            assert not check_set(root, only={file}).ok, (file, name)
            shutil.rmtree(tmp_path / "copy")
