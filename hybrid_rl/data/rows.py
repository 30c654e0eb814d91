"""One row of a data file -> Prompt, with every defect named by its place in the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, cast, get_args

from hybrid_rl.errors import DataError
from hybrid_rl.images import FileImage, ImageRef, InlineImage
from hybrid_rl.records import Message, Prompt, Role

_OWN_COLUMNS = frozenset({"id", "prompt", "messages", "images", "gold", "task", "thought"})


def to_prompt(row: Mapping[str, Any], *, place: str, folder: Path, source: str, default_id: str) -> Prompt:
    """Read a row.

    Args:
        place: where the row stands, for messages.
        folder: image paths are relative to it.
        source: name of the data source; also the task of rows that name none.
        default_id: the id of a row that has none.

    Raises:
        DataError: a column is missing or unusable, or an image file does not exist.
    """
    images = _images(row.get("images"), place, folder)
    if not images and row.get("image") is not None:
        raise DataError(f"{place} has a column `image`, which is not read; put it in a list in the column `images`")
    return Prompt(
        id=_text(row, "id", place) or default_id,
        source=source,
        task=_text(row, "task", place) or source,
        messages=_messages(row, place, len(images)),
        gold=_gold(row, place),
        images=images,
        thought=_text(row, "thought", place),
        columns={key: value for key, value in row.items() if key not in _OWN_COLUMNS},
    )


def _text(row: Mapping[str, Any], column: str, place: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if column == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{place}: `{column}` must be text, not {value!r:.60}; put it in quotes")
    return value


def _gold(row: Mapping[str, Any], place: str) -> str:
    value = row.get("gold")
    if value is None:
        raise DataError(f"{place} has no `gold`; add a column `gold` with the reference answer")
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise DataError(f"{place}: `gold` must be text or a number, not {value!r:.60}; write it as text")
    if not isinstance(value, str) and not math.isfinite(value):
        raise DataError(f"{place}: `gold` is {value}, not a number; give the reference answer or remove the row")
    gold = str(value)
    if not gold.strip():
        raise DataError(f"{place}: `gold` is empty; give the reference answer or remove the row")
    return gold


def _messages(row: Mapping[str, Any], place: str, num_images: int) -> tuple[Message, ...]:
    prompt, messages = row.get("prompt"), row.get("messages")
    if prompt is not None and messages is not None:
        raise DataError(f"{place} has both `prompt` and `messages`; keep the one that is the question")
    if messages is None:
        if prompt is None:
            raise DataError(f"{place} has neither `prompt` nor `messages`; add a column `prompt` with the question")
        if not isinstance(prompt, str):
            raise DataError(f"{place}: `prompt` must be text; name a column of chat turns `messages`")
        if not prompt.strip():
            raise DataError(f"{place}: `prompt` is empty; give the question or remove the row")
        return (Message(role="user", text=prompt),)
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{place}: `messages` must be a list of turns {{role, content}}")
    turns: list[Message] = []
    num_marks = 0
    for turn in messages:
        # Images stand at the start of the first user turn, whatever the file says; so it may say nothing else.
        first_user = not any(earlier.role == "user" for earlier in turns)
        message, marks = _turn(turn, place, first_user)
        num_marks += marks
        turns.append(message)
    if turns[-1].role != "user":
        raise DataError(f"{place}: `messages` must end with a user turn; the answer belongs in `gold`")
    if num_marks and num_marks != num_images:
        raise DataError(
            f"{place}: `messages` show {num_marks} images but `images` has {num_images}; make the numbers equal"
        )
    return tuple(turns)


def _turn(turn: object, place: str, first_user: bool) -> tuple[Message, int]:
    """The turn as text, and how many images it shows."""
    if not isinstance(turn, Mapping):
        raise DataError(f"{place}: a turn of `messages` must be {{role, content}}, not {turn!r:.60}")
    role, content = turn.get("role"), turn.get("content")
    if role not in get_args(Role):
        raise DataError(f"{place}: a turn of `messages` has the role {role!r}; use {', '.join(get_args(Role))}")
    speaker = cast(Role, role)
    if isinstance(content, str):
        return Message(role=speaker, text=content), 0
    if not isinstance(content, list):
        raise DataError(f"{place}: the content of a {role} turn must be text or a list of parts, not {content!r:.60}")
    texts: list[str] = []
    num_marks = 0
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image":
            if any(value is not None for key, value in part.items() if key not in ("type", "text")):
                raise DataError(f"{place}: an image part holds more than its type; list the images in `images`")
            if role != "user" or not first_user or texts:
                raise DataError(f"{place}: images stand before the text of the first user turn; move them there")
            num_marks += 1
        else:
            raise DataError(f"{place}: a part must be {{type: text, text: ...}} or {{type: image}}, not {part!r:.60}")
    return Message(role=speaker, text="".join(texts)), num_marks


def _images(value: object, place: str, folder: Path) -> tuple[ImageRef, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(f"{place}: `images` must be a list, not {value!r:.60}; put it in brackets")
    return tuple(_image(item, f"{place}, image {number}", folder) for number, item in enumerate(value, start=1))


def _image(item: object, place: str, folder: Path) -> ImageRef:
    """A path, or `{bytes, path}` as `datasets` stores images in Parquet."""
    data, path = (item.get("bytes"), item.get("path")) if isinstance(item, Mapping) else (None, item)
    if isinstance(data, bytes):
        return InlineImage(data, name=place)
    if not isinstance(path, str) or not path:
        raise DataError(f"{place} must be a path or stored bytes, not {item!r:.60}")
    file = folder / path  # an absolute path replaces the folder
    if not file.is_file():
        raise DataError(f"{place}: there is no file {file}; paths are relative to the data file's folder")
    return FileImage(str(file))
