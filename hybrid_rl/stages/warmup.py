"""The warm-up as the run sees it: drive the actor through the supervised steps, keep the result, hand it to all."""

from __future__ import annotations

from hybrid_rl.build import Run
from hybrid_rl.errors import UserError
from hybrid_rl.stages.cache import cache_folder, store

_PACE = 10
"""Supervised steps between two looks at progress and at Ctrl-C."""


def warm_up(run: Run) -> None:
    """Do what is left of the supervised stage. Interrupted, it leaves a checkpoint to go on from."""
    config = run.config.warmup
    assert config is not None
    run.view.stage("warm-up", config.steps)
    done = 0
    with run.clock("warm_up"):
        while done < config.steps:
            try:
                done, loss = run.actor.warm_up(_PACE)
            except UserError:
                run.folder.write_checkpoint(run.actor.save, "warmup", run.actor.warm_up_done())
                raise
            run.view.advance(done, {"loss": loss})
            if run.stop.requested:
                run.folder.write_checkpoint(run.actor.save, "warmup", done)
                run.stop.check()
        run.actor.end_warm_up()
        run.warm_up_needed = False
    if config.cache:
        try:
            store(cache_folder(run.config), run.actor.save)
        except OSError as error:  # a cache is a convenience; the run goes on without it
            run.view.note(f"the warm-up could not be cached: {error}")


def hand_out(run: Run) -> None:
    """Give the actor's weights to everyone, and keep them as the reference that a resumed run will need."""
    weights = run.actor.weights()
    run.rollouts.load_weights(weights)
    if run.done == 0:
        run.reference.load_weights(weights)
        reference = run.folder.path / "reference"
        if run.config.model.path is None and not reference.exists():
            store(reference, run.actor.save)
