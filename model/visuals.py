"""What the placeholders of a prompt stand for: pictures, packages of frames given as pictures, and videos.

Sizes are known before pixels are: a visual has its plans and packages at once, and its frames when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .chat_template import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from .messages import VideoRequest
from .pictures import to_rgb
from .prompt import Piece, image_pieces
from .slicing import SlicePlan
from .video_sampling import FrameChoice, VideoOptions, choose_frames, keep_frames

Plan = Callable[[int, int, int | None], SlicePlan]
"""(width, height, most cells or None for the default) to a plan."""
Packages = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visual:
    """Frames that are encoded together, and how they show in the prompt."""

    frames: Iterable[Image.Image]
    """RGB, in the order of `plans`; a video is decoded while they are read."""
    plans: Sequence[SlicePlan]
    """How each frame is cut."""
    packages: Packages
    """Ticks of the frames of each package, in the order of the frames; [-1] for a picture."""
    placeholder: str
    """The placeholder it stands at."""
    num_places: int = 1
    """Placeholders it takes, the later of which show nothing."""

    def pieces(self, num_features: int, number: int | None) -> list[Piece]:
        """Its part of the prompt: per package what its first frame shows, a line each.

        Args:
            num_features: tokens per slice.
            number: of a picture in the conversation, from 0; None leaves it out.
        """
        pieces: list[Piece] = []
        start = 0
        for package in self.packages:
            if pieces:
                pieces.append("\n")
            pieces += image_pieces(self.plans[start].grid, num_features, number)
            start += len(package)
        return pieces


def picture_visuals(images: Sequence[Any], packages: Packages, plan: Plan, max_slice_nums: int | None) -> list[Visual]:
    """Pictures of one sample, one visual per package.

    Raises:
        ValueError: what is no picture, or one without pixels.
    """
    visuals: list[Visual] = []
    start = 0
    for package in packages:
        frames = [to_rgb(image) for image in images[start : start + len(package)]]
        start += len(package)
        visuals.append(
            Visual(
                frames=frames,
                plans=[plan(*frame.size, max_slice_nums) for frame in frames],
                packages=[package],
                placeholder=IMAGE_PLACEHOLDER,
                num_places=len(package),
            )
        )
    return visuals


def video_visual(request: VideoRequest, plan: Plan, defaults: VideoOptions) -> Visual:
    """A video with its frames chosen; nothing but its first frame is decoded yet.

    Raises:
        ValueError: not a video, one without frames, an unknown option, or temporal ids that do not fit the frames.
    """
    from .video import open_clip  # PyAV, which prompts without video do not need

    options = dict(request.options)
    temporal_ids = options.pop("temporal_ids", None)
    clip = open_clip(request.video, options.pop("source_fps", None))
    settings = defaults.with_changes(options)
    if temporal_ids is not None:
        choice = _given(temporal_ids, clip.num_frames)
    else:
        choice = frame_choice(clip.num_frames, clip.source_fps, settings)
    return Visual(
        frames=clip.frames(choice.indices),
        plans=[plan(*clip.size, settings.max_slice_nums)] * len(choice.indices),
        packages=choice.packages,
        placeholder=VIDEO_PLACEHOLDER,
    )


def frame_choice(num_frames: int, source_fps: float | None, options: VideoOptions) -> FrameChoice:
    """Frames of a clip; without a frame rate they were chosen already.

    Raises:
        ValueError: no frames, or a frame rate that is none.
    """
    if source_fps is None:
        return keep_frames(num_frames, options)
    return choose_frames(num_frames, source_fps, options)


def arranged(places: Sequence[str], pictures: Sequence[Visual], videos: Sequence[Visual]) -> list[Visual | None]:
    """The visual at each placeholder, None at the further places of one.

    Raises:
        ValueError: placeholders and visuals of a kind differ in number.
    """
    queues: dict[str, list[Visual | None]] = {}
    for placeholder, name, visuals in (
        (IMAGE_PLACEHOLDER, "image", pictures),
        (VIDEO_PLACEHOLDER, "video", videos),
    ):
        queue: list[Visual | None] = []
        for visual in visuals:
            queue += [visual, *[None] * (visual.num_places - 1)]
        if places.count(placeholder) != len(queue):
            raise ValueError(f"The text has {places.count(placeholder)} {name} placeholders for {len(queue)} {name}s.")
        queues[placeholder] = queue[::-1]
    return [queues[place].pop() for place in places]


def _given(temporal_ids: Any, num_frames: int) -> FrameChoice:
    packages = tuple(tuple(int(tick) for tick in package) for package in temporal_ids)
    if not all(packages) or sum(map(len, packages)) != num_frames:
        raise ValueError(
            f"The temporal ids of a video describe {sum(map(len, packages))} frames in packages of at least one, but "
            f"it has {num_frames} frames."
        )
    return FrameChoice(tuple(range(num_frames)), packages)
