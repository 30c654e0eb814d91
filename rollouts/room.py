"""How many responses the free memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hybrid_rl.backbones.head_shape import HeadShape
from hybrid_rl.backbones.prefix_memory import shelves_of
from hybrid_rl.errors import ConfigError

DEFAULT_ROWS = 512
_SHARE = 0.8
"""Of the free memory, what responses may take where nobody says how many: the passes through the model need some."""
_VOCABULARY_COPIES = 4
"""Logits, log-probabilities and probabilities of a row, in float32, and what makes one out of the other."""
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Demand:
    """What responses to prompts of these lengths take.

    Attributes:
        columns: most tokens that a response is fed.
        vocabulary: entries of a row of logits.
    """

    shape: HeadShape
    prompt_lengths: Sequence[int]
    columns: int
    vocabulary: int

    def num_bytes(self, rows: int) -> int:
        """With so many responses in flight, at worst: each on a prompt of its own, and a further prompt waiting.

        Every shelf has room for as many prompts, since all of them may be of its lengths.
        """
        shelves = shelves_of(self.prompt_lengths)
        prompts = sum(min(rows + 1, len(shelf)) * self.prompt_lengths[shelf[0]] for shelf in shelves)
        remembered = (rows * self.columns + prompts) * self.shape.bytes_per_token
        return remembered + rows * self.vocabulary * 4 * _VOCABULARY_COPIES

    def rows_within(self, limit: float, most: int) -> int:
        """The largest number of responses, up to `most`, that take no more than so many bytes; 0 where one does."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.num_bytes(middle) <= limit else (low, middle - 1)
        return low


def choose_rows(demand: Demand, asked: int | None, requests: int, free: int | None) -> int:
    """How many responses are in flight together.

    Args:
        asked: `max_rows`; None leaves it to this function.
        requests: responses of the call.
        free: bytes of memory; None where nobody knows.

    Raises:
        ConfigError: so many do not fit.
    """
    most = min(asked or DEFAULT_ROWS, requests)
    if free is None:
        return most
    fitting = demand.rows_within(free if asked else _SHARE * free, most)
    if fitting == most or (fitting and asked is None):
        return fitting
    said = f"rollout.args.max_rows is {asked}; {most} responses" if asked else "one response"
    advice = f"{fitting} fit" if fitting else "not even one fits"
    needed = demand.num_bytes(most if asked else 1)
    raise ConfigError(
        f"{said} of {demand.columns + 1} tokens and their prompts take {needed / _GIB:.1f} GiB of memory and "
        f"{free / _GIB:.1f} GiB are free: {advice}; lower rollout.args.max_rows or modes.kinds.*.max_new_tokens"
    )


def free_bytes(device: torch.device, held: int = 0) -> int | None:
    """Memory that this process may still take; None where the system does not say.

    Args:
        held: bytes of main memory that the process has freed and not given back (`hybrid_rl.workers.memory`). A GPU's
            allocator knows of its own.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    free = _available(Path("/proc/meminfo"))
    left = _left_of_limit(Path("/sys/fs/cgroup"))
    known = [value for value in (free, left) if value is not None]
    return min(known) + held if free is not None else None


def _available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    except (OSError, StopIteration):
        return None


def _left_of_limit(group: Path) -> int | None:
    """What a container's limit leaves. Files that were read count as its memory, and give way when it is asked for."""
    try:
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int((group / "memory.max").read_text()) - used + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
