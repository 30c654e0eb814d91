"""LLaVA-UHD slicing: hand-worked plans, laws, and the released sizes."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from model.slicing import SlicePlan, choose_grid, plan_slices

GOLDEN = Path(__file__).parents[2] / "shared" / "fixtures" / "minicpmv" / "dev"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")

RELEASED = {"max_slice_nums": 9, "scale_resolution": 448, "patch_size": 14}


def test_small_picture_is_enlarged_to_one_view() -> None:
    # 2:1 at 448^2 of area: height int(448 / sqrt 2) = 316, width int(316 * 2) = 632; nearest multiples of 14.
    assert plan_slices(100, 50, **RELEASED) == SlicePlan(source=(630, 322))


def test_four_views_of_a_4_to_3_picture() -> None:
    plan = plan_slices(800, 600, **RELEASED)  # ceil(480000 / 200704) = 3 views; 2x2 is closest to 4:3 among 2..4 cells
    assert plan.grid == (2, 2)
    # Overview: 480000 pixels are above 448^2, height int(448 / sqrt(4/3)) = 387, width int(387 * 4/3) = 516.
    assert plan.source == (518, 392)
    assert plan.cell == (518, 392) and plan.refined == (1036, 784)
    assert plan.patch_grids(14) == [(28, 37)] * 5


def test_square_picture_with_two_views_stacks_them() -> None:
    assert choose_grid(600, 600, 2, 2) == (1, 2)


def test_halves_round_to_the_even_multiple() -> None:
    # 448 / sqrt(1) = 448 is exact; at patch 896 the half 0.5 rounds to zero, and one unit is the least.
    assert plan_slices(448, 448, max_slice_nums=1, scale_resolution=448, patch_size=896).source == (896, 896)
    assert plan_slices(7, 7, max_slice_nums=1, scale_resolution=35, patch_size=14).source == (28, 28)  # 2.5 units -> 2


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_every_slice_is_whole_patches_and_the_maximum_holds(width: int, height: int, maximum: int) -> None:
    plan = plan_slices(width, height, max_slice_nums=maximum, scale_resolution=448, patch_size=14)
    assert plan.num_slices - 1 <= maximum
    for size in [plan.source, plan.cell or (14, 14)]:
        assert size[0] % 14 == 0 and size[1] % 14 == 0 and min(size) > 0


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_picture_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="nothing to encode"):
        plan_slices(*size, **RELEASED)


@needs_golden
def test_released_sizes() -> None:
    for row in json.loads((GOLDEN / "slicing.json").read_text())["rows"]:
        plan = plan_slices(row["w"], row["h"], **{**RELEASED, "max_slice_nums": row["max_slice_nums"]})
        expected = [row["grid_cols_rows"], row["source_wh"], row["refine_wh"], row["tgt_sizes_hw"]]
        got = [plan.grid, plan.source, plan.refined, plan.patch_grids(14)]
        assert json.loads(json.dumps(got)) == expected, row


@needs_golden
def test_released_sizes_of_1500_random_pictures() -> None:
    for w, h, maximum, *expected in load_file(GOLDEN / "slicing_sweep.safetensors")["sweep"].tolist():
        plan = plan_slices(w, h, **{**RELEASED, "max_slice_nums": maximum})
        assert [*(plan.grid or (0, 0)), *plan.source, *(plan.refined or (0, 0))] == expected, (w, h, maximum)
