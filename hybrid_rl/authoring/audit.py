"""Marks on drawn responses, and what they say about a run's labels and its reward.

`RUN/audit.jsonl` holds the draw in its first line and one mark in each further one, written as soon as it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_rl.authoring.audit_draw import Draw, Key
from hybrid_rl.errors import RunFolderError
from hybrid_rl.insight.intervals import wilson
from hybrid_rl.insight.recorded import read_lines
from hybrid_rl.run_folder import RunFolder

FILE = "audit.jsonl"
MARKS = ("fine", "verdict wrong", "label wrong")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of the run's judged responses, with its 95 % interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What the marks say.

    Attributes:
        label: share of responses whose reference answer is right.
        reward: share of responses whose verdict is right.
        counts: by stratum: responses in the run, drawn, marked, and marks by name.
        left_out: strata without a mark, which the shares say nothing about.
    """

    label: Estimate
    reward: Estimate
    counts: Mapping[str, Mapping[str, int]]
    left_out: tuple[str, ...]


class Audit:
    """The draw of a run with its marks.

    Raises:
        RunFolderError: the file is damaged.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.draw: Draw | None = None
        self.marks: dict[Key, str] = {}
        _end_torn_line(folder.path / FILE)
        rows = list(read_lines(folder.path / FILE))
        if rows:
            self.draw = _read_draw(rows[0], folder.path / FILE)
            known = {key for key, _ in self.draw.chosen}
            for row in rows[1:]:
                key = Key(int(row.get("step", -1)), int(row.get("line", -1)))
                if key in known and row.get("mark") in MARKS:
                    self.marks[key] = row["mark"]

    def begin(self, draw: Draw) -> None:
        """Keep a draw, before the first mark."""
        chosen = [{"step": key.step, "line": key.line, "stratum": stratum} for key, stratum in draw.chosen]
        self._folder.append(FILE, {"population": dict(draw.population), "chosen": chosen})
        self.draw = draw

    def mark(self, key: Key, mark: str) -> None:
        """Keep a mark at once; a later one on the same response counts instead."""
        self._folder.append(FILE, {"step": key.step, "line": key.line, "mark": mark})
        self.marks[key] = mark

    def report(self) -> AuditReport:
        """Shares weighted by stratum, so that looking more often where judges disagree moves no estimate.

        share = sum_h W_h p_h with W_h = N_h / N over the strata that have marks. The interval is Wilson's score
        interval at the effective number of marks 1 / sum_h(W_h^2 / n_h) (Kish, Survey Sampling, 1965).

        Raises:
            RunFolderError: nothing is marked.
        """
        if self.draw is None or not self.marks:
            raise RunFolderError(f"{self._folder.path} has no marks yet; give some with `hybrid-rl rewards audit`")
        counts = {}
        for stratum, size in self.draw.population.items():
            keys = [key for key, of in self.draw.chosen if of == stratum]
            marks = [self.marks[key] for key in keys if key in self.marks]
            named = {mark: marks.count(mark) for mark in MARKS}
            counts[stratum] = {"responses": size, "drawn": len(keys), "marked": len(marks), **named}
        return AuditReport(
            label=_estimate(counts, "label wrong"),
            reward=_estimate(counts, "verdict wrong"),
            counts=counts,
            left_out=tuple(s for s, c in counts.items() if c["responses"] and not c["marked"]),
        )


def _estimate(counts: Mapping[str, Mapping[str, int]], fault: str) -> Estimate:
    seen = [c for c in counts.values() if c["marked"]]
    total = sum(c["responses"] for c in seen)
    weights = [c["responses"] / total for c in seen]
    share = sum(w * (1 - c[fault] / c["marked"]) for w, c in zip(weights, seen, strict=True))
    effective = 1 / sum(w**2 / c["marked"] for w, c in zip(weights, seen, strict=True))
    # Wilson's formula holds for any positive number of trials.
    low, high = wilson(share, effective)
    return Estimate(share, low, high)


def _end_torn_line(path: Path) -> None:
    """A line that a crash has cut must not swallow the next mark."""
    if path.is_file() and path.stat().st_size:
        with path.open("r+b") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _read_draw(row: Mapping[str, Any], path: Path) -> Draw:
    try:
        chosen: Sequence[Mapping[str, Any]] = row["chosen"]
        return Draw(
            {str(stratum): int(size) for stratum, size in row["population"].items()},
            tuple((Key(int(entry["step"]), int(entry["line"])), str(entry["stratum"])) for entry in chosen),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(f"{path} does not begin with a draw; move it away to start the audit anew") from error
