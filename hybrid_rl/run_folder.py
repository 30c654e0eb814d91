"""The folder of a run: the only place that knows its layout and writes to it.

config.yaml  metrics.jsonl  eval.jsonl  summary.json  report.html  budgets.json  budgets.png  blind.json
rollouts/step_NNNNNN.jsonl  eval_items/WHEN.jsonl  images/DIGEST.png  checkpoints/step_NNNNNN/  reference/
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hybrid_rl.config import Config, dump_config, load_config
from hybrid_rl.errors import RunFolderError

Stage = Literal["warmup", "train"]
STATE_FILE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A saved state.

    Attributes:
        stage: the stage it was taken in.
        step: steps of that stage that are done.
        metric: value of `checkpoints.keep_best` at that step; None where it has none.
        admission: what admission remembers, as it gives it; empty in the warm-up.
    """

    path: Path
    stage: Stage
    step: int
    metric: float | None
    admission: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFolder:
    path: Path

    # --- opening -----------------------------------------------------------------------------------------------

    @classmethod
    def planned(cls, config: Config) -> RunFolder:
        """Where a new run will live.

        Raises:
            RunFolderError: the folder exists already, or could not be made there.
        """
        path = Path(config.run.dir) if config.run.dir else Path("runs", config.name, time.strftime("%Y%m%d-%H%M%S"))
        if path.exists():
            raise RunFolderError(
                f"run folder {path} exists already; name another with run.dir, or go on with `hybrid-rl train --resume "
                f"{path}`"
            )
        ancestor = next(p for p in path.absolute().parents if p.exists())
        if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
            raise RunFolderError(f"run folder {path} cannot be made: {ancestor} is not a folder you may write to")
        return cls(path)

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """The folder of an earlier run.

        Raises:
            RunFolderError: it is none.
        """
        folder = cls(Path(path))
        if not (folder.path / "config.yaml").is_file():
            raise RunFolderError(f"{path} is not a run folder: it has no config.yaml; check the path")
        return folder

    def create(self, config: Config) -> None:
        try:
            for name in ("rollouts", "images", "checkpoints"):
                (self.path / name).mkdir(parents=True)
            (self.path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"run folder {self.path} cannot be made: {error.strerror}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else trains in the folder inside the block. The lock is the system's and ends with the process.

        Raises:
            RunFolderError: another process does.
        """
        with (self.path / "config.yaml").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFolderError(
                    f"run {self.path} is being trained by another process; wait for it, or stop it first"
                ) from error
            except OSError:  # the file system has no locks
                pass
            yield

    def config(self) -> Config:
        return load_config(self.path / "config.yaml")

    # --- checkpoints -------------------------------------------------------------------------------------------

    def checkpoints(self) -> list[Checkpoint]:
        """All complete checkpoints, oldest first; those of the warm-up precede those of training."""
        found = []
        for path in sorted((self.path / "checkpoints").glob("*/" + STATE_FILE)):
            state = read_json(path)
            found.append(
                Checkpoint(
                    path=path.parent,
                    stage=state["stage"],
                    step=state["step"],
                    metric=state["metric"],
                    admission=state.get("admission", {}),  # earlier versions wrote none
                )
            )
        return sorted(found, key=lambda c: (c.stage == "train", c.step))

    def last_checkpoint(self) -> Checkpoint:
        """Raises a RunFolderError if there is none."""
        found = self.checkpoints()
        if not found:
            raise RunFolderError(f"run folder {self.path} has no checkpoint; start the run anew")
        return found[-1]

    def write_checkpoint(
        self,
        save: Callable[[str], None],
        stage: Stage,
        step: int,
        metric: float | None = None,
        admission: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Have `save` fill a folder, and make it a checkpoint in one move, so that none is ever half there."""
        name = f"step_{step:06d}" if stage == "train" else f"warmup_{step:06d}"
        final, temporary = self.path / "checkpoints" / name, self.path / "checkpoints" / f".{name}.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save(str(temporary.absolute()))
        if not any(temporary.iterdir()):
            raise RunFolderError(
                f"the actor does not write where the run folder {self.path} is; put run.dir on storage that all nodes "
                f"share"
            )
        state = {"stage": stage, "step": step, "metric": metric, "admission": dict(admission or {})}
        (temporary / STATE_FILE).write_text(json.dumps(state))
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        return Checkpoint(path=final, stage=stage, step=step, metric=metric, admission=dict(admission or {}))

    def prune_checkpoints(self, keep_last: int, best_is: Literal["max", "min"]) -> None:
        """Keep the newest ones and the best one; once training has begun, those of the warm-up go."""
        found = self.checkpoints()
        train = [c for c in found if c.stage == "train"]
        keep = {c.path for c in (train or found)[-keep_last:]}
        best = self.best_checkpoint(best_is)
        for checkpoint in found:
            if checkpoint.path not in keep and (best is None or checkpoint.path != best.path):
                shutil.rmtree(checkpoint.path)

    def best_checkpoint(self, best_is: Literal["max", "min"]) -> Checkpoint | None:
        """The best by its metric, the newest among equals; None where none has a metric."""
        sign = 1 if best_is == "max" else -1
        rated = [(sign * c.metric, c.step, c) for c in self.checkpoints() if c.metric is not None]
        return max(rated, key=lambda r: r[:2])[2] if rated else None

    # --- records -----------------------------------------------------------------------------------------------

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a line to a JSON Lines file."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def write_rollouts(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._replace(self.path / "rollouts" / f"step_{step:06d}.jsonl", text)

    def evaluation_items(self, when: Literal["before", "after"] | int, of: str = "") -> Path:
        """Where the single responses of an evaluation are, before or after training or at a step.

        Args:
            of: empty for the evaluation proper, `blind`, or `set_NAME`.
        """
        return self.path / "eval_items" / of / f"{when if isinstance(when, str) else f'step_{when:06d}'}.jsonl"

    def write_evaluation(
        self, when: Literal["before", "after"] | int, rows: Iterable[Mapping[str, Any]], of: str = ""
    ) -> None:
        """Keep the single responses of an evaluation; one that is made again replaces the former."""
        path = self.evaluation_items(when, of)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def write_image(self, name: str, read: Callable[[], bytes]) -> str:
        """Keep an image once, read if it is not there; returns its path relative to the run folder."""
        path = self.path / "images" / name
        if not path.exists():
            path.write_bytes(read())
        return f"images/{name}"

    def metrics(self) -> list[dict[str, Any]]:
        return list(self._lines("metrics.jsonl"))

    def evaluations(self) -> list[dict[str, Any]]:
        """`step`, and what was evaluated then: `eval`, `eval_blind`, `eval_sets`."""
        return list(self._lines("eval.jsonl"))

    def write_result(self, name: str, content: str | bytes) -> Path:
        """Keep what was measured of a run after it: `budgets.json`, `budgets.png`, `blind.json`."""
        path = self.path / name
        temporary = path.with_name(path.name + ".part")
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            temporary.replace(path)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be written: {error.strerror}; make its folder writable") from error
        return path

    def summary(self) -> dict[str, Any]:
        path = self.path / "summary.json"
        return read_json(path) if path.is_file() else {}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        self._replace(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop what was recorded after a step, so that a resumed run writes it anew."""
        for name in ("metrics.jsonl", "eval.jsonl"):
            kept = [row for row in self._lines(name) if row["step"] <= step]
            if (self.path / name).exists():
                self._replace(self.path / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
        recorded = [*(self.path / "rollouts").glob("step_*.jsonl"), *(self.path / "eval_items").rglob("step_*.jsonl")]
        for path in recorded:
            if int(path.stem.removeprefix("step_")) > step:
                path.unlink()

    def _lines(self, name: str) -> Iterable[dict[str, Any]]:
        path = self.path / name
        if path.is_file():
            # A line without its end was cut by a crash; what it was to say is trained again.
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                yield _parse_json(line, path)

    def _replace(self, path: Path, text: str) -> None:
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of a run.

    Raises:
        RunFolderError: it is damaged.
    """
    return _parse_json(path.read_text(encoding="utf-8"), path)


def _parse_json(text: str, path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}); restore it, or start the run anew") from error
    return found
