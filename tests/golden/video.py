"""Which frames of a video are shown, and when."""

from __future__ import annotations

from golden.golden_set import GoldenSet
from golden.ledger import Ledger
from model.video_sampling import TICK_S, VideoOptions, choose_frames


def check_video_sampling(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """Frames, packages and ticks by the rule of the model card."""
    content = golden.json(file)
    limits = content["constants"]
    with ledger.at(file, "constants"):
        ledger.same("seconds per tick", TICK_S, limits["TIME_SCALE"])
    for i, row in enumerate(content["rows"]):
        with ledger.at(file, f"row {i}, {row['n_video_frames']} frames at {row['avg_fps']}/s"):
            options = VideoOptions(
                fps=row["choose_fps"],
                packing=row["force_packing"],
                max_packages=limits["MAX_NUM_FRAMES"],
                max_packing=limits["MAX_NUM_PACKING"],
            )
            choice = choose_frames(row["n_video_frames"], row["avg_fps"], options)
            ledger.same("frames", choice.indices, row["frame_index"])
            ledger.same("number of frames", len(choice.indices), row["chosen_frames"])
            ledger.same("temporal ids", choice.packages, row["temporal_ids"])
            ledger.same("frames per package", max(map(len, choice.packages)), row["packing"])
