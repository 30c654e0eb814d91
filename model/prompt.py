"""Text with image and video placeholders to token ids with known feature spans.

Ids are put together piece by piece, so where image features go is known by construction and never searched for: text
that looks like a marker cannot move a span. Such text is cut after its first character before it is tokenised, and
stays the ordinary characters it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .chat_template import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER

PLACEHOLDER_TOKEN = "<unk>"
MEDIA_MARKERS = (PLACEHOLDER_TOKEN, "<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>")
"""Tokens that only the processor writes: the placeholder, and what surrounds its runs."""

_PLACEHOLDERS = re.compile("|".join(map(re.escape, (IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER))))

# Permanently unassigned code points: no text has a reason to hold one, and one of them marks a cut until rendered
# text is tokenised.
_CUT_CANDIDATES = tuple(map(chr, range(0xFDD0, 0xFDF0)))

EncodeAll = Callable[[list[str]], list[list[int]]]
"""Texts to the ids of each."""
Piece = str | int
"""Text to tokenise, or the number of placeholder tokens of one package."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Token ids of one sample and where its visual features go."""

    input_ids: list[int]
    spans: list[tuple[int, int]]
    """(first placeholder, one after the last) of every package, in text order."""


def image_pieces(grid: tuple[int, int] | None, num_features: int, number: int | None) -> list[Piece]:
    """What one picture is in the prompt: number, overview, then its cells with a line per row of the grid.

    Args:
        grid: (columns, rows) of the cells, None for a picture that is not cut.
        num_features: tokens per slice.
        number: of the picture in the conversation, from 0; None leaves it out.
    """
    pieces: list[Piece] = [] if number is None else [f"<image_id>{number}</image_id>"]
    pieces += ["<image>", num_features, "</image>"]
    columns, rows = grid or (0, 0)
    for row in range(rows):
        if row:
            pieces.append("\n")
        for _ in range(columns):
            pieces += ["<slice>", num_features, "</slice>"]
    return pieces


def placeholders_of(text: str) -> list[str]:
    """The image and video placeholders of rendered text, in order."""
    return _PLACEHOLDERS.findall(text)


def interleave(text: str, shown: Sequence[list[Piece] | None], literal: LiteralText) -> list[Piece]:
    """Put the pieces of each picture or video at its placeholder; marker-like text between them is cut by `literal`.

    Args:
        shown: one entry per placeholder of `text`. None is a later frame of a package of pictures: it shows nothing of
            its own, and the text before it loses its surrounding white space, so the frames leave no empty lines.
    """
    *chunks, rest = _PLACEHOLDERS.split(text)
    pieces: list[Piece] = []
    for chunk, visual in zip(chunks, shown, strict=True):
        pieces += literal.split(chunk.strip()) if visual is None else [*literal.split(chunk), *visual]
    return [*pieces, *literal.split(rest)]


def encode_pieces(pieces: Sequence[Piece], encode_all: EncodeAll, placeholder_id: int) -> EncodedPrompt:
    """Tokenise the text pieces, each on its own, and lay the runs of placeholders between them.

    Equal pieces are tokenised once: a film of many packages repeats the same few markers.
    """
    texts = list(dict.fromkeys(piece for piece in pieces if isinstance(piece, str) and piece))
    encoded = dict(zip(texts, encode_all(texts), strict=True)) if texts else {}
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    for piece in pieces:
        if isinstance(piece, int):
            spans.append((len(ids), len(ids) + piece))
            ids += [placeholder_id] * piece
        elif piece:
            ids += encoded[piece]
    return EncodedPrompt(ids, spans)


class LiteralText:
    """Keeps text that merely looks like markers from becoming tokens.

    Args:
        markers: the token strings to protect against, each starting with "<".
    """

    def __init__(self, markers: Iterable[str]) -> None:
        rests = "|".join(re.escape(marker[1:]) for marker in sorted(markers))
        self._inside = re.compile(f"(?<=<)(?={rests})")

    def split(self, text: str) -> list[str]:
        """Pieces of `text` none of which holds a marker; joined they are `text`."""
        return self._inside.split(text)

    def mark(self, value: Any, cut: str) -> Any:
        """A copy of a message, or of any part of it, with `cut` inside every marker in its strings."""
        if isinstance(value, str):
            return self._inside.sub(cut, value)
        if isinstance(value, dict):
            return {key: self.mark(part, cut) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(part, cut) for part in value]
        return value


def unused_cut(value: Any) -> str:
    """A character that occurs nowhere in the strings of `value`.

    Raises:
        ValueError: all candidates occur.
    """
    used = _characters(value)
    for cut in _CUT_CANDIDATES:
        if cut not in used:
            return cut
    raise ValueError("The messages contain every unassigned code point from U+FDD0 to U+FDEF.")


def _characters(value: Any) -> set[str]:
    if isinstance(value, str):
        return set(value).intersection(_CUT_CANDIDATES)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {character for part in parts for character in _characters(part)}
