"""Vision tower and ragged layout: positions, raggedness, and the released numbers."""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model import MiniCPMVForConditionalGeneration, tiny_minicpmv
from model.ragged import RaggedLayout
from model.vision import position_buckets

plain_tiny = partial(tiny_minicpmv, query_num=8, words=())
"""Eight queries and bytes alone: the numbers in these tests are those of this size."""

GOLDEN = Path(__file__).parents[2] / "shared" / "fixtures" / "minicpmv"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")


def strips_of(grids: list[tuple[int, int]]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(3, 14, 14 * rows * columns, generator=generator) for rows, columns in grids]


@pytest.fixture(scope="module")
def tower() -> torch.nn.Module:
    return plain_tiny(0)[0].vpm


def test_positions_of_axes_without_ties() -> None:
    # Three patches at 0, 1/3, 2/3 of 70 buckets: 0, 23.3, 46.7; sixteen patches of sixteen buckets are the identity.
    assert position_buckets(3, 70).tolist() == [0, 23, 46]
    assert position_buckets(1, 70).tolist() == [0]
    assert position_buckets(16, 16).tolist() == list(range(16))


def test_rows_of_the_table_are_row_major(tower: torch.nn.Module) -> None:
    assert tower.embeddings.position_ids(2, 4).tolist() == [0, 4, 8, 12, 128, 132, 136, 140]


def test_ragged_batch_equals_one_by_one(tower: torch.nn.Module) -> None:
    grids = [(4, 3), (1, 2), (3, 4), (5, 1), (1, 2)]
    strips = strips_of(grids)
    together = tower(strips, grids)
    for strip, grid, out in zip(strips, grids, together, strict=True):
        torch.testing.assert_close(out, tower([strip], [grid])[0], atol=2e-6, rtol=0)


def test_eager_equals_sdpa() -> None:
    model, _ = plain_tiny(0)
    grids = [(4, 3), (2, 2)]
    sdpa = model.vpm(strips_of(grids), grids)
    model.set_attn_implementation("eager")
    assert model.config.vision_config._attn_implementation == "eager"
    torch.testing.assert_close(model.vpm(strips_of(grids), grids), sdpa, atol=1e-5, rtol=0)


def test_layout_keeps_equal_lengths_together_and_restores_the_order_of_the_input() -> None:
    layout = RaggedLayout.of([3, 1, 3])
    assert layout.order == (1, 0, 2)
    assert [(b.start, b.num_sequences, b.length) for b in layout.blocks] == [(0, 1, 1), (1, 2, 3)]
    assert layout.restore(["one", "three, first", "three, second"]) == ["three, first", "one", "three, second"]


def test_passes_hold_what_fits_and_name_the_input_sequences() -> None:
    runs = list(RaggedLayout.of([3, 1, 3, 9]).passes(5))
    assert [run.order for run in runs] == [(1, 0), (2,), (3,)]
    assert [[(b.start, b.num_sequences, b.length) for b in run.blocks] for run in runs] == [
        [(0, 1, 1), (1, 1, 3)],
        [(0, 1, 3)],
        [(0, 1, 9)],
    ]


def test_several_passes_give_what_one_gives(tower: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    grids = [(4, 3), (1, 2), (3, 4), (5, 1)]
    together = tower(strips_of(grids), grids)
    monkeypatch.setattr("model.ragged._CPU_PASS_BYTES", 4 * 256 * 6)  # six patches of the widest layer
    for ours, whole in zip(tower(strips_of(grids), grids), together, strict=True):
        torch.testing.assert_close(ours, whole, atol=2e-6, rtol=0)


def test_too_narrow_strip_is_refused(tower: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="cannot hold 4 patches"):
        tower([torch.zeros(3, 14, 28)], [(2, 2)])


@needs_golden
def test_released_position_table() -> None:
    table = load_file(GOLDEN / "position_buckets.safetensors")["bucket_table"]
    for n in range(1, 161):
        assert position_buckets(n, 70).tolist() == table[n - 1, :n].tolist(), n


@needs_golden
@pytest.mark.parametrize("case", ["ragged", "full448", "wide_tall"])
def test_released_features(case: str) -> None:
    model = MiniCPMVForConditionalGeneration.from_pretrained(GOLDEN / "dev", dtype=torch.float32).eval()
    golden = load_file(GOLDEN / "dev" / "vision_tower.safetensors")
    grids = [tuple(size) for size in golden[f"{case}.tgt_sizes"].tolist()]
    with torch.no_grad():
        out = model.vpm(list(golden[f"{case}.pixel_values"].float()), grids)
    for i, features in enumerate(out):
        expected = golden[f"{case}.last_hidden_state"][i, : len(features)]
        torch.testing.assert_close(features, expected, atol=3e-5, rtol=0)
