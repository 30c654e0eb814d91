"""What can be done with a finished run or one of its checkpoints: evaluate it, ask it. In this process, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.config import Config
from hybrid_rl.errors import ConfigError, RunFolderError
from hybrid_rl.images import FileImage
from hybrid_rl.insight.evaluator import Evaluator
from hybrid_rl.preflight import Material, prepare
from hybrid_rl.records import Message, Prompt, Response
from hybrid_rl.run_folder import STATE_FILE, RunFolder
from hybrid_rl.videos import FileVideo
from hybrid_rl.workers.cluster import Handle, InProcess
from hybrid_rl.workers.reference import ReferenceWorker
from hybrid_rl.workers.reward import RewardWorker
from hybrid_rl.workers.rollout import RolloutWorker
from hybrid_rl.workers.served_policy import ServedPolicy
from hybrid_rl.workers.setup import WorkerSetup


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint with the config of its run."""

    config: Config
    checkpoint: str

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.checkpoint).resolve().parent.parent


def open_saved(target: Path) -> Saved:
    """Find the checkpoint that a path means: itself, or the last one of a run.

    Raises:
        RunFolderError: the path is neither a run with a checkpoint nor a checkpoint inside a run.
    """
    if (target / STATE_FILE).is_file():
        return Saved(RunFolder.existing(target.resolve().parent.parent).config(), str(target))
    if not (target / "config.yaml").is_file():
        raise RunFolderError(f"{target} is neither a run folder nor a checkpoint of one; check the path")
    folder = RunFolder.existing(target)
    return Saved(folder.config(), str(folder.last_checkpoint().path))


def evaluate_saved(saved: Saved, num_prompts: int | None) -> dict[str, Any]:
    """Evaluate afresh, in the form of `summary.json`'s `eval.after`."""
    config, material = material_of(saved, num_prompts)
    return Evaluator(config, material, *workers_of(saved, config, material)).plain()


def material_of(saved: Saved, num_prompts: int | None) -> tuple[Config, Material]:
    """The config with another number of prompts a mode, if one is given, and its material."""
    config = saved.config
    if num_prompts is not None:
        evaluation = config.evaluation.model_copy(update={"prompts_per_mode": num_prompts})
        config = config.model_copy(update={"evaluation": evaluation})
    return config, prepare(config, saved.checkpoint)


def workers_of(saved: Saved, config: Config, material: Material) -> tuple[RolloutWorker, RewardWorker]:
    """What generates and what scores, in this process."""
    setup = WorkerSetup(config=config, checkpoint=saved.checkpoint)
    worker = RolloutWorker(setup)
    policy = ServedPolicy(setup, [InProcess(lambda: worker)], _initial(saved))
    return worker, RewardWorker(config, material.wants_thought, policy)


def _initial(saved: Saved) -> Handle | None:
    """The initial policy of the run, for rewards that ask for it; loaded when the first does. None with an adapter."""
    if saved.config.model.lora is not None:
        return None
    kept = saved.folder / "reference"
    setup = WorkerSetup(config=saved.config, checkpoint=str(kept) if kept.is_dir() else None)
    return InProcess(lambda: ReferenceWorker(setup))


def answer(
    saved: Saved, question: str, images: Sequence[Path], videos: Sequence[Path], mode: str | None, seed: int
) -> Response:
    """Sample one response, as in training.

    Raises:
        ConfigError: there is no such mode.
        DataError: an image or a video cannot be read, or the question is longer than the context.
    """
    kinds = saved.config.modes.kinds
    chosen = mode if mode is not None else next(iter(kinds))
    if chosen not in kinds:
        raise ConfigError(f"there is no mode '{chosen}'; the run has {', '.join(kinds)}")
    prompt = Prompt(
        id="question",
        source="command line",
        task="",
        messages=(Message(role="user", text=question),),
        gold="",
        images=tuple(FileImage(str(path)) for path in images),
        videos=tuple(FileVideo(str(path)) for path in videos),
    )
    request = make_requests([prompt], [chosen], saved.config.modes, step=0, num_responses=1, seed=seed)
    worker = RolloutWorker(WorkerSetup(config=saved.config, checkpoint=saved.checkpoint))
    return worker.generate(request)[0].response
