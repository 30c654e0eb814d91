"""The benchmarks at tiny sizes: they run, print JSON, and their opponent is the same model. Time is never judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from benchmarks import reward_pool, video_efficiency, vision
from benchmarks.activations import saved_bytes
from benchmarks.eager_vision import EagerResampler, EagerVisionTower
from benchmarks.pictures import MIXED_GRIDS, random_slices, real_slices
from benchmarks.timing import interleaved
from benchmarks.video_models import Sizes, clip, minicpmv, pack_for_qwen, qwen
from model import MiniCPMVForConditionalGeneration, MiniCPMVImageProcessor, tiny_minicpmv

GOLDEN = Path(__file__).parents[2] / "shared" / "fixtures" / "minicpmv" / "dev"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Cases by name; standard output is JSON alone, in the form of all benchmarks."""
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["threads"] >= 1
    for case in report["cases"]:
        assert case["ours"]["wall"] > 0 and case["runs"] >= 1
        if case["peer"] is not None:
            assert case["ratio"]["wall"] == case["peer"]["wall"] / case["ours"]["wall"]
    return {case["name"]: case for case in report["cases"]}


def test_vision_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--width 32 --heads 2 --intermediate 64 --hidden 128 --queries 4 --layers 1"
    effort = "--slices 1 --runs 1 --peak-products 1 --cases equal mixed"
    vision.main([*sizes.split(), *effort.split()])
    cases = printed(capsys)
    assert set(cases) == {"equal_float32", "equal_bfloat16", "mixed_float32"}
    mixed = cases["mixed_float32"]
    assert mixed["max_difference"] < 1e-4
    assert mixed["patches"] == 4968
    assert mixed["padding_fraction"] == pytest.approx(1 - 4968 / (16 * 1024))
    memory = mixed["activation_memory"]
    assert memory["ratio"] == memory["peer"] / memory["ours"] > 1 / 0.6


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


def test_one_video_measurement_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--side 56 --width 256 --layers 1 --vision-layers 1 --new-tokens 3"
    for name in ("minicpmv", "qwen2_5_vl"):
        video_efficiency.main([*sizes.split(), "--only", name, "13"])
        figures = json.loads(capsys.readouterr().out)
        assert figures["new_tokens"] == 3
        assert 0 < figures["encoder_s"] < figures["time_to_first_token_s"] < figures["wall"]
        # 13 frames are 3 packages of 64 tokens, or 7 pairs of 4 x 4 patches with 4 patches a token.
        assert figures["visual_tokens"] == {"minicpmv": 3 * 64, "qwen2_5_vl": 7 * 4}[name]


@pytest.mark.slow
def test_both_models_are_measured_in_processes_of_their_own() -> None:
    sizes = "--side 56 --width 256 --layers 1 --vision-layers 1 --new-tokens 2"
    found = video_efficiency.compare(6, 1, sizes.split())
    assert found["ratio"]["visual_tokens"] == 12 / 64


def test_twelve_frames_are_128_tokens_here_and_1536_in_qwen() -> None:
    """The example of the paper, section 2."""
    video, small = clip(12, 448), Sizes(width=256, layers=1, vision_layers=1)
    assert minicpmv(video, small, 6).visual_tokens == 128
    assert qwen(video, small).visual_tokens == 1536


def test_decoders_have_one_shape() -> None:
    small = Sizes(width=256, layers=2, vision_layers=1)
    ours = minicpmv(clip(2, 56), small, 6).model.llm.model.layers[0]
    theirs = qwen(clip(2, 56), small).model.model.language_model.layers[0]
    shapes = [{n: tuple(p.shape) for n, p in m.named_parameters() if p.dim() == 2} for m in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_packed_pixels_of_qwen_by_hand() -> None:
    """Row: time, row of 2x2 blocks, column of blocks, row and column inside; then channel, frame, and the patch."""
    video = torch.randint(256, (3, 3, 28, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    packed, grid = pack_for_qwen(video)
    assert grid.tolist() == [[2, 2, 4]]
    pixels = (torch.cat([video, video[-1:]]).float() / 255 - 0.5) / 0.5
    order = [(t, i, 2 * block + j) for t in range(2) for block in range(2) for i in range(2) for j in range(2)]
    for row, (t, i, j) in zip(packed, order, strict=True):
        patch = pixels[2 * t : 2 * t + 2, :, 14 * i : 14 * i + 14, 14 * j : 14 * j + 14]
        torch.testing.assert_close(row, patch.transpose(0, 1).flatten())


def test_saved_bytes_of_a_known_graph() -> None:
    layer, x = nn.Linear(8, 4), torch.randn(5, 8)
    # A linear map keeps its input, the square its own input; the weight is a parameter.
    assert saved_bytes(lambda: layer(x).square().sum(), layer.parameters()) == 4 * (5 * 8 + 5 * 4)


def test_candidates_run_in_turn_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    seconds = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, runs=2)
    assert calls == ["a", "b"] * 3
    assert len(seconds["a"]) == 2


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


def test_the_reward_pool_loses_no_case(capsys: pytest.CaptureFixture[str]) -> None:
    reward_pool.main(["--cases", "200"])
    found = printed(capsys)["reward_pool"]
    assert found["wrong"] == 0 and found["with_one_hang"]["others_wrong"] == 0
    assert found["replaced"] == 1 + 10
    assert found["ours"]["with_one_hang_s"] < found["with_one_hang"]["limit_s"] + 1
