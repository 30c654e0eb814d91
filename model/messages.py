"""Chat messages: where their pictures are, and copies without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_IMAGE_TYPES = ("image", "image_url")
_IMAGE_KEYS = ("image", "url", "path", "base64", "image_url")


def images_of(conversation: list[dict[str, Any]]) -> list[Any]:
    """Pictures of a conversation in the order of their blocks: as given, or the path that a block names.

    Raises:
        ValueError: an image block without a picture.
    """
    return [_image(block) for message in conversation for block in _image_blocks(message)]


def without_images(conversations: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Copies of conversations in which image blocks name nothing but their type."""
    return [[{**m, "content": _stripped(m.get("content"))} for m in messages] for messages in conversations]


def copied(conversations: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Copies that rendering may change; pictures and texts are shared."""
    return [[dict(message) for message in messages] for messages in conversations]


def _image_blocks(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    for block in content if isinstance(content, list | tuple) else ():
        if isinstance(block, dict) and block.get("type") in _IMAGE_TYPES:
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
    return [{"type": "image"} if isinstance(b, dict) and b.get("type") in _IMAGE_TYPES else b for b in content]
