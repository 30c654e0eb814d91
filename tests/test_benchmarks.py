"""The benchmarks at tiny sizes: they run, print JSON, and their opponent is the same model. Time is never judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from benchmarks import vision
from benchmarks.activations import saved_bytes
from benchmarks.eager_vision import EagerResampler, EagerVisionTower
from benchmarks.pictures import MIXED_GRIDS, random_slices, real_slices
from benchmarks.timing import interleaved
from model import MiniCPMVForConditionalGeneration, MiniCPMVImageProcessor, tiny_minicpmv

GOLDEN = Path(__file__).parents[2] / "shared" / "fixtures" / "minicpmv" / "dev"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_vision_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--width 32 --heads 2 --intermediate 64 --hidden 128 --queries 4 --layers 1 --slices 2 --runs 1"
    vision.main([*sizes.split(), "--cases", "equal", "mixed"])
    report = printed(capsys)
    assert set(report["cases"]) == {"equal_float32", "equal_bfloat16", "mixed_float32"}
    mixed = report["cases"]["mixed_float32"]
    assert mixed["max_difference"] < 1e-4
    assert mixed["patches"] == 4968
    assert mixed["padding_fraction"] == pytest.approx(1 - 4968 / (16 * 1024))
    memory = mixed["activation_memory"]
    assert memory["ratio"] == memory["ours"] / memory["eager"] < 0.6


def test_declared_mix_spans_64_to_1024_patches() -> None:
    lengths = random_slices(list(MIXED_GRIDS)).lengths
    assert (min(lengths), max(lengths)) == (64, 1024)


def test_real_pictures_are_cut_by_the_image_processor() -> None:
    slices = real_slices(MiniCPMVImageProcessor())
    assert len(set(slices.grids)) > 3
    assert all(s.shape == (3, 14, 14 * n) for s, n in zip(slices.strips, slices.lengths, strict=True))


def test_flops_of_one_layer_by_hand() -> None:
    model, _ = tiny_minicpmv(0, vision_num_hidden_layers=1, vision_hidden_size=96, vision_intermediate_size=256)
    tokens, queries, hidden = 6, 12, 128
    maps = 4 * 96 * 96 + 2 * 96 * 256 + 3 * 14 * 14 * 96 + 96 * hidden
    probes = 2 * queries * 1 * hidden  # scores and mixing of 12 queries in one head
    attention = 2 * tokens * tokens * 96
    expected = 2 * (tokens * (maps + probes) + attention + 3 * queries * hidden**2)
    assert vision.executed_flops([tokens], model.vpm, model.resampler) == expected


def test_saved_bytes_of_a_known_graph() -> None:
    layer, x = nn.Linear(8, 4), torch.randn(5, 8)
    # A linear map keeps its input, the square its own input; the weight is a parameter.
    assert saved_bytes(lambda: layer(x).square().sum(), layer.parameters()) == 4 * (5 * 8 + 5 * 4)


def test_candidates_run_in_turn_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    seconds = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, runs=2)
    assert calls == ["a", "b"] * 3
    assert seconds["a"].runs == 2


@needs_golden
@pytest.mark.parametrize("case", ["ragged", "full448", "wide_tall"])
def test_the_opponent_passes_the_golden_vision_cases(case: str) -> None:
    model = MiniCPMVForConditionalGeneration.from_pretrained(GOLDEN, dtype=torch.float32).eval()
    eager = EagerVisionTower.like(model.vpm, model.config.vision_config)
    golden = load_file(GOLDEN / "vision_tower.safetensors")
    grids = [tuple(size) for size in golden[f"{case}.tgt_sizes"].tolist()]
    with torch.no_grad():
        out = eager(list(golden[f"{case}.pixel_values"].float()), grids)
    for i, features in enumerate(out):
        expected = golden[f"{case}.last_hidden_state"][i, : len(features)]
        torch.testing.assert_close(features, expected, atol=3e-5, rtol=0)


@needs_golden
@pytest.mark.parametrize("case", ["image_ragged", "video_ragged", "video_equal", "big_grid"])
def test_the_opponent_passes_the_golden_resampler_cases(case: str) -> None:
    model = MiniCPMVForConditionalGeneration.from_pretrained(GOLDEN, dtype=torch.float32).eval()
    golden = load_file(GOLDEN / "resampler.safetensors")
    cases = json.loads((GOLDEN / "index.json").read_text())["files"]["resampler.safetensors"]["cases"]
    ticks = next(entry["temporal_ids"] for entry in cases if entry["case"] == case)
    grids = [tuple(size) for size in golden[f"{case}.tgt_sizes"].tolist()]
    frames = [x[: rows * columns] for x, (rows, columns) in zip(golden[f"{case}.x"], grids, strict=True)]
    with torch.no_grad():
        out = EagerResampler(model.resampler)(frames, grids, ticks or [[-1]] * len(grids))
    torch.testing.assert_close(out, golden[f"{case}.out"], atol=3e-5, rtol=0)
