"""From samples to batches: which picture or video belongs to which text, which slice to which package, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .chat_template import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from .messages import VideoRequest
from .pictures import nest
from .prompt import EncodedPrompt
from .resampler import STILL


def pictures_per_text(images: Any, texts: Sequence[str]) -> list[list[Any]]:
    """Pictures as [text][picture]; a flat list is dealt out by the placeholders of each text.

    Raises:
        ValueError: a flat list for several texts that has not as many pictures as they have placeholders.
    """
    if images is None:
        return [[] for _ in texts]
    nested = nest(images)
    flat = not isinstance(images, list | tuple) or not any(i is None or isinstance(i, list | tuple) for i in images)
    if len(texts) == 1 or not flat:
        return nested or [[]]
    return _dealt(nested[0], texts, IMAGE_PLACEHOLDER, "image")


def videos_per_text(videos: Any, texts: Sequence[str]) -> list[list[VideoRequest]]:
    """Videos as [text][video]; a flat list is dealt out by the placeholders of each text.

    A video is a file name, a list of pictures, an array of four axes, or a dict like a video block of a message.

    Raises:
        ValueError: a flat list for several texts that has not as many videos as they have placeholders, or what is no
            video.
    """
    if videos is None:
        return [[] for _ in texts]
    if _is_video(videos):
        videos = [videos]
    if all(map(_is_video, videos)):
        requests = [_request(video) for video in videos]
        return [requests] if len(texts) == 1 else _dealt(requests, texts, VIDEO_PLACEHOLDER, "video")
    for sample, (given, text) in enumerate(zip(videos, texts, strict=False)):
        # Where the text has no placeholder it is a sample without videos.
        if given is not None and len(given) == 0 and VIDEO_PLACEHOLDER in text:
            raise ValueError(f"Sample {sample} has a video without frames, which has nothing to encode.")
    return [[_request(video) for video in sample or ()] for sample in videos]


def _is_video(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return isinstance(value[0], Image.Image) or getattr(value[0], "ndim", 0) in (2, 3)
    return isinstance(value, str | Path | dict) or getattr(value, "ndim", 0) == 4


def _request(video: Any) -> VideoRequest:
    if isinstance(video, list | tuple) and not video:
        raise ValueError("A video without frames has nothing to encode.")
    if not _is_video(video):
        raise ValueError(
            "A video must be a file name, a list of pictures, an array of four axes or a dict with one of these as "
            f"'video', got {type(video).__name__}."
        )
    return VideoRequest.of(video) if isinstance(video, dict) else VideoRequest(video, {})


def _dealt(pool: list[Any], texts: Sequence[str], placeholder: str, name: str) -> list[list[Any]]:
    """A flat list cut into one list per text, as long as the text has placeholders."""
    counts = [text.count(placeholder) for text in texts]
    if sum(counts) != len(pool):
        raise ValueError(f"The texts have {sum(counts)} {name} placeholders for {len(pool)} {name}s.")
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [pool[start : start + count] for start, count in zip(starts, counts, strict=True)]


def packages_of(temporal_ids: Any, images: list[list[Any]]) -> list[list[list[int]]]:
    """Packages as [sample][package] of ticks; without `temporal_ids` every picture is a package of its own.

    Raises:
        ValueError: the packages of a sample do not hold exactly its pictures, or one is empty.
    """
    stills = [[[STILL] for _ in sample] for sample in images]
    if temporal_ids is None:
        return stills
    given = list(temporal_ids)
    # One sample may be given without the outer list: then the first level down holds numbers.
    if given and given[0] and not isinstance(given[0][0], list | tuple):
        given = [given]
    if len(given) != len(images):
        raise ValueError(f"temporal_ids describe {len(given)} samples of {len(images)}.")
    packages: list[list[list[int]]] = []
    for sample, (groups, pictures) in enumerate(zip(given, images, strict=True)):
        # A sample without pictures may carry a stand-in package.
        if not pictures or not groups:
            packages.append(stills[sample])
            continue
        if not all(map(len, groups)) or sum(map(len, groups)) != len(pictures):
            raise ValueError(
                f"The temporal ids of sample {sample} describe {sum(map(len, groups))} frames in packages of at "
                f"least one, but it has {len(pictures)} images."
            )
        packages.append([[int(tick) for tick in group] for group in groups])
    return packages


def order_by_package(
    slice_counts: Sequence[int], groups: Sequence[Sequence[int]]
) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Order in which the slices of one sample are encoded, and the ticks of each resulting package.

    The frames of a group form one package per slice index: all their overviews, then all their first cells, ...

    Returns:
        (picture, slice of it) in order, and per package its ticks.

    Raises:
        ValueError: frames of one group are cut into different numbers of slices.
    """
    order: list[tuple[int, int]] = []
    ticks: list[list[int]] = []
    start = 0
    for group in groups:
        frames = range(start, start + len(group))
        start += len(group)
        counts = {slice_counts[frame] for frame in frames}
        if len(counts) != 1:
            raise ValueError(f"Frames of one package must have equally many slices, got {sorted(counts)}.")
        for i in range(counts.pop()):
            order += [(frame, i) for frame in frames]
            ticks.append(list(group))
    return order, ticks


def sequences(
    prompts: Sequence[EncodedPrompt],
    pad_id: int,
    *,
    padding_side: str,
    padded: bool,
    min_length: int,
    return_tensors: str | None,
) -> dict[str, Any]:
    """`input_ids`, `attention_mask` and `image_bound` of a batch.

    The mask comes from lengths: a pad id may well be a token of the text. Spans move along with left padding.

    Raises:
        ValueError: `return_tensors` other than "pt", or a side that is none.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f'padding_side must be "left" or "right", got {padding_side!r}.')
    if return_tensors not in (None, "pt"):
        raise ValueError(f'return_tensors must be "pt" or None, got {return_tensors!r}.')
    longest = max((len(prompt.input_ids) for prompt in prompts), default=0)
    longest = max(longest, min_length)
    ids: list[list[int]] = []
    masks: list[list[int]] = []
    bounds: list[torch.Tensor] = []
    for prompt in prompts:
        length = len(prompt.input_ids)
        gap = longest - length if padded else 0
        before, after = (gap, 0) if padding_side == "left" else (0, gap)
        ids.append([pad_id] * before + prompt.input_ids + [pad_id] * after)
        masks.append([0] * before + [1] * length + [0] * after)
        bounds.append(torch.tensor(prompt.spans, dtype=torch.long).reshape(-1, 2) + before)
    if return_tensors is None:
        return {"input_ids": ids, "attention_mask": masks, "image_bound": bounds}
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(masks), "image_bound": bounds}


def refuse_longer(prompts: Sequence[EncodedPrompt], max_length: int | None) -> None:
    """Check a limit of tokens per prompt. Nothing is ever cut off: it would lose an image or the end of the turn.

    Raises:
        ValueError: a prompt is longer than `max_length`.
    """
    for sample, prompt in enumerate(prompts):
        length = len(prompt.input_ids)
        if max_length is None or length <= max_length:
            continue
        inside = next((span for span in prompt.spans if span[0] <= max_length < span[1]), None)
        where = f", inside the tokens {inside[0]} to {inside[1]} of an image" if inside else ""
        raise ValueError(
            f"The prompt of sample {sample} has {length} tokens; max_length {max_length} would cut it{where}. "
            "Raise max_length, shorten the text or lower max_slice_nums."
        )
