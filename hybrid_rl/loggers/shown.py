"""A response as a logger shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.film_strip import film_strip
from hybrid_rl.images import open_image
from hybrid_rl.records import Outcome
from hybrid_rl.videos import Clip, VideoRef

COLUMNS = ("mode", "prompt", "response", "gold", "reward", "advantage")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSample:
    """Attributes:
    images: of the prompt, and a strip of frames of each of its videos.
    reward: None without a score.
    advantage: of the response's first token.
    """

    mode: str
    prompt: str
    response: str
    gold: str
    reward: float | None
    advantage: float
    images: tuple[Image.Image, ...]

    @property
    def row(self) -> tuple[str | float | None, ...]:
        """The values of `COLUMNS`."""
        return self.mode, self.prompt, self.response, self.gold, self.reward, self.advantage


def first_groups(groups: Sequence[Group], clip: Callable[[VideoRef], Clip]) -> list[ShownSample]:
    """The samples of the first group of each mode.

    Args:
        clip: opens a video.
    """
    first = {group.mode: group for group in reversed(groups)}
    chosen = [first[mode] for mode in dict.fromkeys(group.mode for group in groups)]
    found = []
    for group in chosen:
        prompt = group.samples[0].rollout.request.prompt
        images = (*map(open_image, prompt.images), *(film_strip(clip(video)) for video in prompt.videos))
        for sample in group.samples:
            found.append(
                ShownSample(
                    mode=group.mode,
                    prompt="\n".join(message.text for message in prompt.messages),
                    response=sample.rollout.response.text,
                    gold=prompt.gold,
                    reward=sample.score.value if sample.score.outcome is Outcome.OK else None,
                    advantage=sample.advantages[0] if sample.advantages else 0.0,
                    images=images,
                )
            )
    return found
