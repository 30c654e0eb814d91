"""The actor: what its updates make of the config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_lora import groups_of, setup_of

from hybrid_rl.config import Config
from hybrid_rl.workers.actor import ActorWorker
from hybrid_rl.workers.rollout import RolloutWorker


def test_the_learning_rate_rises_stays_and_falls(small_config: Callable[..., Config], tmp_path: Path) -> None:
    """WSD by hand: 2 steps of rise, 2 of 6 stay, the last 2 fall to 0; a resumed actor goes on where it was."""
    config = small_config(
        "run.steps=6",
        "train.warmup_steps=2",
        "train.decay_fraction=0.34",
        "train.final_scale=0",
        "train.optimizer.learning_rate=0.001",
    )
    setup = setup_of(config)
    groups = groups_of(config, RolloutWorker(setup))
    actor = ActorWorker(setup)
    rates = [actor.update(groups, None)[1].learning_rate for _ in range(4)]
    actor.save(str(tmp_path / "kept"))
    resumed = ActorWorker(setup_of(config, tmp_path / "kept"))
    rates.append(resumed.update(groups, None)[1].learning_rate)
    before = {name: p.detach().clone() for name, p in resumed._policy.model.named_parameters()}
    rates.append(resumed.update(groups, None)[1].learning_rate)
    assert rates == pytest.approx([0.0005, 0.001, 0.001, 0.001, 0.0005, 0.0])
    assert all(p.equal(before[name]) for name, p in resumed._policy.model.named_parameters())  # at rate 0 nothing moves
