"""Prompts from the user's own JSON Lines or Parquet files. See `rows.py` for the columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from hybrid_rl.data.rows import to_prompt
from hybrid_rl.data.tables import Table, open_table
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.protocols import Split
from hybrid_rl.records import Prompt, stable_seed


class FileSource:
    """The rows of a file. All of them are checked when the source is built, so that a run cannot die of row 90,000.

    Args:
        seed: not used; the split is the same whatever the seed, so that no run trains on what another evaluates on.
        path: the data file; `.jsonl`, `.json` (one object a line) or `.parquet`.
        eval_path: the evaluation data; without it a part of `path` is kept for evaluation, chosen by row number.
        eval_fraction: that part, from 0 up to but not including 1.
        max_prompts: use only so many rows of the split, from its start.
        search: folders that relative paths are looked up in before the working directory, first match wins.

    Raises:
        ConfigError: an argument is out of range.
        DataError: a file cannot be read, a row cannot be used, or the split is empty; with the place in the file.
    """

    def __init__(
        self,
        name: str,
        split: Split,
        seed: int,
        path: str,
        eval_path: str | None = None,
        eval_fraction: float = 0.1,
        max_prompts: int | None = None,
        search: Sequence[str] = (),
    ) -> None:
        _check(name, split, eval_fraction, max_prompts)
        file = _find(path, search)
        eval_file = None if eval_path is None else _find(eval_path, search)
        if eval_file is not None and eval_file.resolve() == file.resolve():
            raise DataError(f"data source '{name}': {path} is both training and evaluation data; leave out eval_path")
        self._name = name
        self._file = eval_file if eval_file is not None and split == "eval" else file
        self._table = open_table(self._file)
        if len(self._table) == 0:
            raise DataError(f"data file {self._file} has no rows; fill it or name another")
        _check_rows(self._table, self._prompt)
        every = range(len(self._table))
        self._rows = list(every) if eval_path is not None else _part_of(split, self._table, eval_fraction)
        if not self._rows:
            raise DataError(
                f"data source '{name}': none of the {len(every)} rows of {self._file} are kept for {split}; "
                f"give eval_path or another eval_fraction than {eval_fraction}"
            )
        self._rows = self._rows[:max_prompts]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Prompt:
        if not 0 <= index < len(self._rows):
            raise IndexError(f"data source '{self._name}' has prompts 0 to {len(self._rows) - 1}, not {index}")
        return self._prompt(self._rows[index])

    def _prompt(self, row: int) -> Prompt:
        return to_prompt(
            self._table.row(row),
            place=self._table.place(row),
            folder=self._file.parent,
            source=self._name,
            default_id=f"{self._file.stem}/{self._table.number(row):06d}",
        )


def _check(name: str, split: str, eval_fraction: float, max_prompts: int | None) -> None:
    if split not in get_args(Split):
        raise ConfigError(f"data source '{name}': there is no split '{split}'; choose train or eval")
    if not isinstance(eval_fraction, int | float) or not 0 <= eval_fraction < 1:
        raise ConfigError(f"data source '{name}': eval_fraction is {eval_fraction!r}; give 0 or more, and less than 1")
    if max_prompts is not None and (not isinstance(max_prompts, int) or max_prompts < 1):
        raise ConfigError(f"data source '{name}': max_prompts is {max_prompts!r}; give a whole number of at least 1")


def _find(path: str, search: Sequence[str]) -> Path:
    """The file in the first folder that has it; the working directory comes last."""
    candidates = list(dict.fromkeys(Path(folder) / path for folder in (*search, ".")))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " nor ".join(str(candidate.absolute()) for candidate in candidates)
    raise DataError(f"there is no data file {looked}; check the path")


def _check_rows(table: Table, read: Callable[[int], Prompt]) -> None:
    """Read every row once; ids must differ, because responses are grouped by them."""
    seen: dict[str, int] = {}
    for row in range(len(table)):
        prompt = read(row)
        earlier = seen.setdefault(prompt.id, row)
        if earlier != row:
            raise DataError(
                f"{table.place(row)} has the same id '{prompt.id}' as {table.place(earlier)}; make the ids differ"
            )


def _part_of(split: Split, table: Table, eval_fraction: float) -> list[int]:
    """The rows of a split. A row's part depends on its number alone: appended rows move none of the old ones."""
    chances = [stable_seed("eval row", table.number(row)) / 2**63 for row in range(len(table))]
    kept = {row for row, chance in enumerate(chances) if chance < eval_fraction}
    # A file of a few rows would often leave one side empty; then the likeliest row goes there.
    if eval_fraction > 0 and len(chances) > 1:
        if not kept:
            kept = {min(range(len(chances)), key=chances.__getitem__)}
        elif len(kept) == len(chances):
            kept.remove(max(range(len(chances)), key=chances.__getitem__))
    return [row for row in range(len(chances)) if (row in kept) == (split == "eval")]
