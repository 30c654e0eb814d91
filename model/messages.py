"""Chat messages: where their pictures and videos are, and copies without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .chat_template import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER

_IMAGE_TYPES = ("image", "image_url")
_IMAGE_KEYS = ("image", "url", "path", "base64", "image_url")
_VIDEO_TYPES = ("video",)
_VIDEO_KEYS = ("video", "url", "path")
_PLACEHOLDERS = {"image": IMAGE_PLACEHOLDER, "image_url": IMAGE_PLACEHOLDER, "video": VIDEO_PLACEHOLDER}

Conversation = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """A video as a caller names it."""

    video: Any
    """File name, list of frames, or array."""
    options: dict[str, Any]
    """Settings for this video alone: fields of `VideoOptions`, `source_fps`, `temporal_ids`."""

    @classmethod
    def of(cls, block: dict[str, Any]) -> VideoRequest:
        """Read a video block; entries that are None count as absent.

        Raises:
            ValueError: a block without a video.
        """
        given = {key: value for key, value in block.items() if value is not None and key != "type"}
        for key in _VIDEO_KEYS:
            if key in given:
                return cls(given.pop(key), given)
        raise ValueError(f"A video block needs one of {', '.join(_VIDEO_KEYS)}, this one has {', '.join(block)}.")


def images_of(conversation: Conversation) -> list[Any]:
    """Pictures of a conversation in the order of their blocks: as given, or the path that a block names.

    Raises:
        ValueError: an image block without a picture.
    """
    return [_image(block) for message in conversation for block in _blocks(message, _IMAGE_TYPES)]


def videos_of(conversation: Conversation) -> list[VideoRequest]:
    """Videos of a conversation in the order of their blocks.

    Raises:
        ValueError: a video block without a video.
    """
    return [VideoRequest.of(block) for message in conversation for block in _blocks(message, _VIDEO_TYPES)]


def without_media(conversations: list[Conversation]) -> list[Conversation]:
    """Copies of conversations in which image and video blocks name nothing but their type."""
    return [[{**m, "content": _stripped(m.get("content"))} for m in messages] for messages in conversations]


def copied(conversations: list[Conversation]) -> list[Conversation]:
    """Copies that rendering may change; pictures and texts are shared."""
    return [[dict(message) for message in messages] for messages in conversations]


def flattened(conversations: list[Conversation]) -> list[Conversation]:
    """Copies with every content as one string, a line per block, for templates that know no blocks.

    Raises:
        ValueError: a block of another type than text, image and video.
    """
    return [[{**m, "content": _text(m.get("content"))} for m in messages] for messages in conversations]


def _blocks(message: dict[str, Any], types: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    for block in content if isinstance(content, list | tuple) else ():
        if isinstance(block, dict) and block.get("type") in types:
            yield block


def _image(block: dict[str, Any]) -> Any:
    for key in _IMAGE_KEYS:
        value = block.get(key)
        if value is not None:
            return value.get("url") if isinstance(value, dict) else value
    raise ValueError(f"An image block needs one of {', '.join(_IMAGE_KEYS)}, this one has {', '.join(block)}.")


def _stripped(content: Any) -> Any:
    if not isinstance(content, list | tuple):
        return content
    return [_bare(block) for block in content]


def _bare(block: Any) -> Any:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind in _IMAGE_TYPES:
        return {"type": "image"}
    return {"type": "video"} if kind in _VIDEO_TYPES else block


def _text(content: Any) -> Any:
    if not isinstance(content, list | tuple):
        return content
    lines: list[str] = []
    for block in content:
        kind = "text" if isinstance(block, str) else block.get("type")
        if kind == "text":
            lines.append(block if isinstance(block, str) else block["text"])
        elif kind in _PLACEHOLDERS:
            lines.append(_PLACEHOLDERS[kind])
        else:
            raise ValueError(f"Cannot render a content block of type {kind}.")
    return "\n".join(lines)
