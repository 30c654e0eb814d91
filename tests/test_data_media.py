"""What the columns `images` and `videos` refuse, one clear sentence each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybrid_rl.data.media import read_images, read_videos
from hybrid_rl.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "a.png").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    "item",
    [{"path": "a.mp4", "frames_per_second": 2}, {"bytes": b"x", "fps": 2}, {"path": "a.mp4", "frames": ["a.png"]}],
    ids=["rate of a file", "rate of bytes", "file and frames"],
)
def test_what_is_written_beside_a_stored_video_is_not_lost_without_a_word(folder: Path, item: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^d:1, video 1 has '\w+', which is not read; a stored video has bytes, path$"):
        read_videos([item], "d:1", folder)
    kept = {key: value for key, value in item.items() if key in ("bytes", "path")}
    assert len(read_videos([{**kept, "frames_per_second": None}], "d:1", folder)) == 1  # as a table stores it


@pytest.mark.parametrize("read", [read_images, read_videos])
def test_base64_in_the_place_of_a_path_is_no_path(folder: Path, read: Any) -> None:
    with pytest.raises(DataError, match="1: there is no file") as caught:
        read(["A" * 100_000], "d:1", folder)
    assert len(str(caught.value)) < 1000


def test_a_rate_beyond_all_numbers_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="`frames_per_second` must be a number above 0"):
        read_videos([{"frames": ["a.png"], "frames_per_second": 10**400}], "d:1", folder)
