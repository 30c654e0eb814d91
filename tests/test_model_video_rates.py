"""Frame rates below one: slides and time lapses."""

import pytest

from model import VideoOptions, choose_frames
from model.video_sampling import keep_frames


@pytest.mark.parametrize("rate", [0.5, 0.4, 0.2])
def test_slides_slower_than_one_in_two_seconds_are_all_shown_at_their_times(rate: float) -> None:
    choice = choose_frames(10, rate, VideoOptions())
    assert choice.indices == tuple(range(10))
    assert [package[0] for package in choice.packages] == pytest.approx([10 * i / rate for i in range(10)], abs=1)


@pytest.mark.parametrize("choose", [choose_frames, lambda n, rate, _: keep_frames(n, VideoOptions(fps=rate))])
def test_a_rate_that_makes_weeks_of_a_few_frames_is_refused(choose) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="frames at 1e-09 frames per second take more than 1,000,000 seconds"):
        choose(3, 1e-9, VideoOptions())
