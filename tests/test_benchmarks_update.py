"""The benchmark of the update, at tiny sizes: every side makes the same gradient of the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import update
from benchmarks.grpo_cases import SIZES, Workload
from benchmarks.grpo_folder import write_folder
from benchmarks.update_sides import SIDES, UpdateSide

TINY = SIZES["tiny"]


def test_all_sides_make_the_same_gradient(tmp_path: Path) -> None:
    work = Workload.of(update.CASES["mixed_prompts"], TINY)
    write_folder(tmp_path, TINY, images=False)
    found = {side: UpdateSide(work, tmp_path, 1, side, fast=False).run() for side in SIDES}
    norm = found["padded"]["gradient_norm"]
    assert all(side["gradient_norm"] == pytest.approx(norm, rel=1e-4) for side in found.values())
    tokens = {side: figures["forwarded_tokens"] for side, figures in found.items()}
    # Two prompts of 4 and 32 tokens, two responses each of 16 and of 1 or 2.
    responses = work.response_tokens
    assert tokens["packed"] == 4 + 32 + responses
    assert tokens["unshared"] == 2 * (4 + 32) + responses
    assert tokens["padded"] == 4 * (32 + 16)


def test_the_prediction_counts_tokens() -> None:
    """Prompts as long as responses, groups of 8: 8 x 2 against 1 + 8."""
    work = Workload.of(update.CASES["sharing_1"], SIZES["30m"])
    assert update.predicted(work, work.sizes) == pytest.approx(16 / 9)
