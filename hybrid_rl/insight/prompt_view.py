"""A prompt exactly as the model reads it: token by token, in one mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from hybrid_rl.algorithm.length_target import with_target
from hybrid_rl.chat_format import TemplateChatFormat
from hybrid_rl.config import Config
from hybrid_rl.data.sources import make_mixture
from hybrid_rl.errors import ConfigError
from hybrid_rl.policy import outline_policy
from hybrid_rl.protocols import Split
from hybrid_rl.records import Prompt

Part = Literal["text", "image", "video", "prefilled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A token of the prompt, or a run of equal tokens of an image or a video.

    Attributes:
        place: of its first token in the prompt, from 0.
        count: of its tokens; above 1 only in an image or a video.
        part: `image` tokens stand for pictures, `video` tokens for frames, `prefilled` ones begin the assistant's turn
            in the model's name.
    """

    place: int
    id: int
    count: int
    text: str
    part: Part


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptView:
    """A prompt in one mode.

    Attributes:
        ids: of all its tokens [P].
        max_new_tokens: budget of the response.
        stop_ids: ids that end the response.
    """

    prompt: Prompt
    mode: str
    ids: tuple[int, ...]
    pieces: tuple[Piece, ...]
    max_new_tokens: int
    stop_ids: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "prompt_id": self.prompt.id,
            "source": self.prompt.source,
            "ids": list(self.ids),
            "pieces": [
                {"place": p.place, "id": p.id, "count": p.count, "text": p.text, "part": p.part} for p in self.pieces
            ],
            "max_new_tokens": self.max_new_tokens,
            "stop_ids": list(self.stop_ids),
        }


def view_prompts(config: Config, mode: str | None, index: int, split: Split) -> list[PromptView]:
    """One prompt of the config's data, in one mode or in each.

    Args:
        index: of the prompt, from 0, when the sources take turns by weight.

    Raises:
        ConfigError: there is no such mode.
        DataError: there are not so many prompts.
    """
    kinds = config.modes.kinds
    if mode is not None and mode not in kinds:
        raise ConfigError(f"there is no mode '{mode}'; modes.kinds has {', '.join(kinds)}")
    outline = outline_policy(config.model, config.modes, seed=config.run.seed, search=config.search)
    prompt = make_mixture(config.data.sources, split, config.run.seed, config.search).at(index)
    return [
        view_prompt(
            outline.format, with_target(prompt, name, kinds), name, outline.forbidden_ids, kinds[name].max_new_tokens
        )
        for name in ([mode] if mode is not None else kinds)
    ]


def view_prompt(
    chat: TemplateChatFormat, prompt: Prompt, mode: str, image_ids: Sequence[int], max_new_tokens: int
) -> PromptView:
    """A prompt as `chat` writes it.

    Args:
        image_ids: ids that only pictures and videos bring into a prompt.
    """
    ids = chat.prompt_ids(prompt, mode)
    prefilled = _prefilled_from(chat, ids, mode)
    pieces: list[Piece] = []
    pictured = set(image_ids)
    place = 0
    pictures_left = _picture_tokens(chat, prompt, mode, pictured)
    for (token, own), run in groupby(enumerate(ids), key=lambda item: (item[1], item[1] in pictured or item)):
        count = len(list(run))
        part: Part = "prefilled" if place >= prefilled else "text"
        if own is True:
            part = "image" if pictures_left > 0 else "video"
            pictures_left -= count
        pieces.append(Piece(place=place, id=token, count=count, text=chat.decode([token]), part=part))
        place += count
    return PromptView(
        prompt=prompt,
        mode=mode,
        ids=ids,
        pieces=tuple(pieces),
        max_new_tokens=max_new_tokens,
        stop_ids=chat.stop_ids(mode),
    )


def _picture_tokens(chat: TemplateChatFormat, prompt: Prompt, mode: str, pictured: set[int]) -> int:
    """Tokens of the prompt's images, which stand before its videos; both may have the same ids."""
    alone = replace(prompt, videos=()) if prompt.videos else prompt
    return sum(token in pictured for token in chat.prompt_ids(alone, mode)) if prompt.images else 0


def _prefilled_from(chat: TemplateChatFormat, ids: Sequence[int], mode: str) -> int:
    """Place of the first token that holds any of the mode's prefilled text."""
    text = _prefilled_text(chat, mode)
    start = len(ids)
    while start > 0 and len(chat.decode(ids[start:])) < len(text):
        start -= 1
    return start


def _prefilled_text(chat: TemplateChatFormat, mode: str) -> str:
    """The part of the opening that answers for the model: a think block, open or closed, and the prefill."""
    opening = chat.opening(mode)
    places = [opening.find(tag) for tag in chat.thought_tags if tag in opening]
    return opening[min([*places, len(opening) - len(chat.prefill(mode))]) :]
