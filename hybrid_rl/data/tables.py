"""Rows of a JSON Lines or Parquet file by number, memory-mapped by Hugging Face `datasets`."""

from __future__ import annotations

import glob
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

from hybrid_rl.errors import DataError

_BYTE_ORDER_MARK = "\ufeff"


class Table(Protocol):
    """The rows of a file. Columns without a value in a row are None or left out."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> dict[str, Any]: ...

    def number(self, index: int) -> int:
        """The row's own number in its file: its line from 1, or its place from 0."""
        ...

    def place(self, index: int) -> str:
        """Where the row stands, for a message."""
        ...


def open_table(path: Path) -> Table:
    """Open a file by its suffix: `.jsonl` and `.json` (one object a line) or `.parquet`.

    Raises:
        DataError: the file is missing, of another kind, or broken; broken lines are named.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".json", ".parquet"):
        raise DataError(f"data file {path} has an unknown suffix '{suffix}'; use .jsonl, .json or .parquet")
    if not path.is_file():
        raise DataError(f"there is no data file {path}; check the path")
    return _Parquet(path) if suffix == ".parquet" else _JsonLines(path)


class _JsonLines:
    """One JSON object a line; empty lines are skipped.

    `datasets` holds the lines as text. Its JSON loader would turn answers such as "2024-05-01 10:00:00" into dates and
    the text "3" into a number where another row has one; an answer must stay as it was written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        filled = _check_lines(path)
        self._lines = _load("text", path) if filled else ()
        self._filled = filled

    def __len__(self) -> int:
        return len(self._filled)

    def row(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self._lines[self._filled[index]]["text"].removeprefix(_BYTE_ORDER_MARK))
        return row

    def number(self, index: int) -> int:
        return self._filled[index] + 1

    def place(self, index: int) -> str:
        return f"{self._path}:{self.number(index)}"


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path = path
        # The Arrow format gives rows as they are stored: images stay encoded bytes until someone needs pixels.
        self._rows = _load("parquet", path).with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self._rows[index].to_pylist()[0]
        return row

    def number(self, index: int) -> int:
        return index

    def place(self, index: int) -> str:
        return f"{self._path} row {index} (counted from 0)"


def _check_lines(path: Path) -> list[int]:
    """Line indices that hold a row, after a check that each is a JSON object."""
    filled = []
    index = -1
    try:
        with path.open(encoding="utf-8") as lines:
            for index, line in enumerate(lines):
                text = line.removeprefix(_BYTE_ORDER_MARK) if index == 0 else line
                if text.strip():
                    _check_object(text, f"{path}:{index + 1}")
                    filled.append(index)
    except UnicodeDecodeError as error:
        # Python decodes in blocks, so the broken byte is somewhere after the last line that was read.
        line_number = _line_of_bad_byte(path) or index + 2
        raise DataError(f"{path}:{line_number} is not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"data file {path} cannot be read: {error.strerror or error}; check the path") from error
    return filled


def _line_of_bad_byte(path: Path) -> int | None:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return None


def _check_object(text: str, place: str) -> None:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error)
        column = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{place} is not JSON: {reason}{column}; write one object a line") from error
    if not isinstance(value, Mapping):
        raise DataError(f"{place} is not a JSON object but {_kind(value)}; write one object a line, as in {{...}}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _kind(value: object) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _load(kind: str, path: Path) -> Any:
    """The file as a `datasets.Dataset`. Nothing is sent anywhere, unlike by `datasets.load_dataset`, which counts."""
    import datasets  # a second to import; only who reads files pays it

    # `datasets` always writes an Arrow copy, and takes an old one for new where file names repeat: a folder of our own
    # cannot be stale. The mapped file outlives its name, so the folder can go at once.
    was_silent = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory(prefix="hybrid_rl_data_") as folder:
            # Escaped, because `datasets` would read brackets and stars in a file name as a pattern.
            source = glob.escape(str(path.absolute()))
            read = datasets.Dataset.from_text if kind == "text" else datasets.Dataset.from_parquet
            return read(source, cache_dir=folder)
    except Exception as error:  # a dozen kinds, from Arrow's to the library's own
        cause = error.__cause__ or error
        raise DataError(f"data file {path} cannot be read ({cause}); check that it is a {path.suffix} file") from error
    finally:
        if not was_silent:
            datasets.enable_progress_bars()
