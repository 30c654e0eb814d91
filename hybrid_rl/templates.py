"""What chat templates take, and what processors give."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.images import open_image
from hybrid_rl.records import Prompt
from hybrid_rl.videos import Clip, VideoRef


@dataclass(frozen=True, slots=True)
class PromptInputs:
    """What the model reads for a prompt.

    Attributes:
        ids: token ids [P].
        media: every other entry of the processor's output for this one conversation, such as pixels; empty for text.
    """

    ids: tuple[int, ...]
    media: Mapping[str, Any]


def check_template_args(mode: str, arguments: Mapping[str, Any], processor: Any, tokenizer: Any) -> None:
    """A chat template ignores what it does not know, so that a misspelt argument would silently select nothing."""
    template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        return
    for name in arguments:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            words = sorted(set(re.findall(r"[A-Za-z_]\w+", template)))
            near = difflib.get_close_matches(name, words, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"modes.kinds.{mode}.template_args: the chat template does not know '{name}'{hint}")


def single_conversation(ids: Any) -> Sequence[int]:
    """One conversation's ids from a processor that may return a batch of one, as lists or as a tensor."""
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    return ids[0] if ids and isinstance(ids[0], (list, tuple)) else ids


def conversation(prompt: Prompt, open_video: Callable[[VideoRef], Clip] | None) -> list[dict[str, Any]]:
    """A prompt as a processor takes it: images, then videos, then the text of the first user turn.

    Args:
        open_video: gives the clips of videos; None leaves media out, but for their places.

    Raises:
        DataError: an image or a video cannot be read, or there is no user turn to put it in.
    """
    messages: list[dict[str, Any]] = []
    blocks = _media_blocks(prompt, open_video)
    for message in prompt.messages:
        content: Any = message.text
        if blocks and message.role == "user":
            content = [*blocks, {"type": "text", "text": message.text}]
            blocks = []
        messages.append({"role": message.role, "content": content})
    if blocks:
        raise DataError(f"prompt {prompt.id} has images or videos but no user turn to put them in")
    return messages


def _media_blocks(prompt: Prompt, open_video: Callable[[VideoRef], Clip] | None) -> list[dict[str, Any]]:
    if open_video is None:
        return [{"type": "image"} for _ in prompt.images] + [{"type": "video"} for _ in prompt.videos]
    return [
        *({"type": "image", "image": open_image(ref)} for ref in prompt.images),
        *({"type": "video", "video": open_video(ref)} for ref in prompt.videos),
    ]
