"""One row of a data file -> Prompt, with every defect named by its place in the file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, cast, get_args

from hybrid_rl.data.media import read_images, read_videos
from hybrid_rl.errors import DataError
from hybrid_rl.records import Message, Prompt, Role

_OWN_COLUMNS = frozenset({"id", "prompt", "messages", "images", "videos", "gold", "task", "thought"})


def to_prompt(row: Mapping[str, Any], *, place: str, folder: Path, source: str, default_id: str) -> Prompt:
    """Read a row.

    Args:
        place: where the row stands, for messages.
        folder: paths of images and videos are relative to it.
        source: name of the data source; also the task of rows that name none.
        default_id: the id of a row that has none.

    Raises:
        DataError: a column is missing or unusable, or a file that it names does not exist.
    """
    images = read_images(row.get("images"), place, folder)
    videos = read_videos(row.get("videos"), place, folder)
    for one, many in (("image", images), ("video", videos)):
        if not many and row.get(one) is not None:
            raise DataError(f"{place} has a column `{one}`, which is not read; put it in a list in the column `{one}s`")
    return Prompt(
        id=_text(row, "id", place) or default_id,
        source=source,
        task=_text(row, "task", place) or source,
        messages=_messages(row, place, {"image": len(images), "video": len(videos)}),
        gold=_gold(row, place),
        images=images,
        videos=videos,
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


def _messages(row: Mapping[str, Any], place: str, shown: Mapping[str, int]) -> tuple[Message, ...]:
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
    marked: Counter[str] = Counter()
    for turn in messages:
        # Media stand at the start of the first user turn, whatever the file says; so it may say nothing else.
        first_user = not any(earlier.role == "user" for earlier in turns)
        message, marks = _turn(turn, place, first_user)
        marked += marks
        turns.append(message)
    if turns[-1].role != "user":
        raise DataError(f"{place}: `messages` must end with a user turn; the answer belongs in `gold`")
    for kind, number in shown.items():
        if marked and marked[kind] != number:
            raise DataError(
                f"{place}: `messages` show {marked[kind]} {kind}s but `{kind}s` has {number}; make the numbers equal"
            )
    return tuple(turns)


def _turn(turn: object, place: str, first_user: bool) -> tuple[Message, Counter[str]]:
    """The turn as text, and how many images and videos it shows."""
    if not isinstance(turn, Mapping):
        raise DataError(f"{place}: a turn of `messages` must be {{role, content}}, not {turn!r:.60}")
    role, content = turn.get("role"), turn.get("content")
    if role not in get_args(Role):
        raise DataError(f"{place}: a turn of `messages` has the role {role!r}; use {', '.join(get_args(Role))}")
    speaker = cast(Role, role)
    if isinstance(content, str):
        return Message(role=speaker, text=content), Counter()
    if not isinstance(content, list):
        raise DataError(f"{place}: the content of a {role} turn must be text or a list of parts, not {content!r:.60}")
    texts: list[str] = []
    marks: Counter[str] = Counter()
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "video"):
            if any(value is not None for key, value in part.items() if key not in ("type", "text")):
                raise DataError(f"{place}: the {kind} part holds more than its type; list the {kind}s in `{kind}s`")
            if role != "user" or not first_user or texts:
                raise DataError(f"{place}: {kind}s stand before the text of the first user turn; move them there")
            if kind == "image" and marks["video"]:
                raise DataError(f"{place}: images stand before videos; put the image parts first")
            marks[kind] += 1
        else:
            raise DataError(
                f"{place}: a part must be {{type: text, text: ...}}, {{type: image}} or {{type: video}}, not "
                f"{part!r:.60}"
            )
    return Message(role=speaker, text="".join(texts)), marks
