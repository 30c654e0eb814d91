"""3D-Resampler: positions, packages, and the released numbers."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from model import MiniCPMVForConditionalGeneration, tiny_minicpmv
from model.ragged import RaggedLayout
from model.resampler import CrossAttention, grid_rows, key_positions, sine_frequencies, sine_rows

plain_tiny = partial(tiny_minicpmv, query_num=8, words=())
"""Eight queries and bytes alone: the numbers in these tests are those of this size."""

GOLDEN = Path(__file__).parents[2] / "shared" / "fixtures" / "minicpmv" / "dev"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")

CASES = ["image_ragged", "image_temporal_minus1", "video_ragged", "video_equal", "video_far", "big_grid"]


def test_shared_queries_are_moved_to_the_keys_without_changing_the_attention() -> None:
    """Values and gradients are those of torch's own attention, which projects every key and value."""
    torch.manual_seed(0)
    ours, torchs = CrossAttention(256, 2).double(), nn.MultiheadAttention(256, 2).double()
    torchs.in_proj_bias.data.normal_()
    ours.load_state_dict(torchs.state_dict())
    q_QD, k_TD, v_TD = (torch.randn(n, 256, dtype=torch.float64) for n in (3, 11, 11))
    layout = RaggedLayout.of([4, 7])
    out = ours(q_QD, k_TD, v_TD, layout)
    expected = torch.stack([torchs(q_QD, k_TD[part], v_TD[part])[0] for part in (slice(0, 4), slice(4, 11))])
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, torchs.get_parameter(name).grad, msg=name)


@pytest.fixture(scope="module")
def resampler() -> torch.nn.Module:
    return plain_tiny(0)[0].resampler


def frames_of(grids: list[tuple[int, int]]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(rows * columns, 96, generator=generator) for rows, columns in grids]


def test_sine_rows_by_hand() -> None:
    row = sine_rows([3], 4)[0].tolist()
    assert row == pytest.approx([math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)], abs=1e-6)


def test_grid_has_the_column_in_its_first_half() -> None:
    place = grid_rows(3, 5, 8)[1 * 5 + 4]
    assert torch.equal(place[:4], sine_rows([4], 4)[0])
    assert torch.equal(place[4:], sine_rows([1], 4)[0])


def test_time_is_added_to_frames_only() -> None:
    still, moving = key_positions([(2, 2), (2, 2)], [-1, 7], 16).split(4)
    torch.testing.assert_close(moving - still, sine_rows([7], 16).expand(4, -1), atol=1e-6, rtol=0)


def test_packages_together_equal_packages_alone(resampler: torch.nn.Module) -> None:
    grids, packages = [(2, 3), (1, 4), (3, 3), (2, 2), (2, 5)], [[0, 4], [-1], [9, 12]]
    frames = frames_of(grids)
    together = resampler(frames, grids, packages)
    assert together.shape == (3, 8, 128)
    for row, members in zip(together, [slice(0, 2), slice(2, 3), slice(3, 5)], strict=True):
        package = packages[[0, 2, 3].index(members.start)]
        alone = resampler(frames[members], grids[members], [package])[0]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=0)


def test_time_of_a_frame_changes_its_package_only(resampler: torch.nn.Module) -> None:
    grids = [(2, 2)] * 3
    early = resampler(frames_of(grids), grids, [[0, 1], [-1]])
    late = resampler(frames_of(grids), grids, [[0, 50], [-1]])
    assert (early[0] - late[0]).abs().max() > 1e-3
    torch.testing.assert_close(early[1], late[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("packages", [[[0]], [[0, 1], []]])
def test_packages_must_hold_the_frames(resampler: torch.nn.Module, packages: list[list[int]]) -> None:
    grids = [(2, 2)] * 2
    with pytest.raises(ValueError, match="temporal ids describe"):
        resampler(frames_of(grids), grids, packages)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "resampler.safetensors")


def test_eager_equals_sdpa() -> None:
    model, _ = plain_tiny(0)
    grids, packages = [(4, 3), (2, 2), (2, 2)], [[0, 3], [-1]]
    sdpa = model.resampler(frames_of(grids), grids, packages)
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model.resampler(frames_of(grids), grids, packages), sdpa, atol=1e-5, rtol=0)


def test_frequencies_are_the_powers_to_float32() -> None:
    """From one radian a step on; the exponent is rounded to float32 first, as in the released code."""
    for count in (3, 64, 192, 1280):
        frequencies = sine_frequencies(count)
        assert frequencies.dtype == np.float32 and frequencies[0] == 1
        exact = 10000.0 ** (-np.arange(count) / count)
        assert np.abs(frequencies / exact - 1).max() < 2.0**-21


@needs_golden
def test_released_frequencies_bit_for_bit(golden: dict[str, torch.Tensor]) -> None:
    """On every machine: numpy's own power differs between processors in a fifth of them."""
    assert np.array_equal(sine_frequencies(2048), golden["temporal_omega_4096"].numpy())


@needs_golden
def test_released_positions(golden: dict[str, torch.Tensor]) -> None:
    for rows, columns in [(1, 9), (3, 5), (6, 2)]:
        expected = golden[f"pos2d.{rows}x{columns}"].flatten(0, 1)
        torch.testing.assert_close(grid_rows(rows, columns, 256), expected, atol=1e-6, rtol=0)
    ids = golden["temporal.ids"].tolist()
    torch.testing.assert_close(sine_rows(ids, 256), golden["temporal.table"], atol=1e-6, rtol=0)
    wide = sine_rows([ids[1], ids[3], ids[7]], 4096)
    torch.testing.assert_close(wide, golden["temporal_real4096"], atol=1e-6, rtol=0)
    corner = grid_rows(3, 4, 4096)[[3, 4, 10]]
    torch.testing.assert_close(corner, golden["pos2d_real4096.3x4"], atol=1e-6, rtol=0)


@needs_golden
def test_released_tokens(golden: dict[str, torch.Tensor]) -> None:
    model = MiniCPMVForConditionalGeneration.from_pretrained(GOLDEN, dtype=torch.float32).eval()
    index = json.loads((GOLDEN / "index.json").read_text())["files"]["resampler.safetensors"]["cases"]
    for case in index:
        name = case["case"]
        grids = [tuple(size) for size in golden[f"{name}.tgt_sizes"].tolist()]
        frames = [x[: rows * columns] for x, (rows, columns) in zip(golden[f"{name}.x"], grids, strict=True)]
        with torch.no_grad():
            out = model.resampler(frames, grids, case["temporal_ids"] or [[-1]] * len(grids))
        torch.testing.assert_close(out, golden[f"{name}.out"], atol=3e-5, rtol=0)
    assert [case["case"] for case in index] == CASES
