"""The training loop: prompts -> requests -> rollouts -> scores -> groups -> update -> weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybrid_rl.build import Run, open_run
from hybrid_rl.collecting import collect
from hybrid_rl.config import Config
from hybrid_rl.insight.recorder import Recorder
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.stages.warmup import hand_out, warm_up


def run(config: Config) -> dict[str, Any]:
    """Train a config from its beginning; returns the content of `summary.json`."""
    with open_run(config) as new:
        return train(new)


def resume(folder: str | Path) -> dict[str, Any]:
    """Go on with an interrupted run from its last checkpoint."""
    existing = RunFolder.existing(folder)
    with open_run(existing.config(), existing) as old:
        return train(old)


def train(run: Run) -> dict[str, Any]:
    """Warm up, evaluate, train, evaluate."""
    config = run.config
    with Recorder(run) as record:
        if run.warm_up_needed:
            warm_up(run)
        hand_out(run)
        if run.done == 0:
            record.checkpoint()
            if config.evaluation.before:
                record.evaluation("before")
        record.catch_up()
        run.view.stage("training", config.run.steps)
        for step in range(run.done + 1, config.run.steps + 1):
            if record.stopped:
                break
            train_step(run, step, record)
            if step % config.checkpoints.every_steps == 0 or step == config.run.steps or record.stopped:
                record.checkpoint()
            record.evaluation(step)
            record.check_stop()
        record.checkpoint()
        if config.evaluation.after:
            record.evaluation("after")
        return record.finish()


def train_step(run: Run, step: int, record: Recorder) -> None:
    """One GRPO step. Until the update begins it can be abandoned without a trace."""
    config, clock = run.config, record.phases()
    collected = collect(run, step, clock)
    groups = collected.groups
    with clock("reference"):
        asked = config.train.kl_coefficient > 0 or step % config.train.reference_every_steps == 0
        reference = run.reference.logprobs(groups) if asked else None
    record.rollouts(step, groups)
    with clock("update"):
        version, figures = run.actor.update(groups, reference)
    with clock("sync"):
        run.rollouts.load_weights(run.actor.weights())
    run.admission = collected.admission
    record.step(step, version, collected, figures, reference, clock.wall_s)
