"""`rollout` and `cluster`: which engine generates, and who runs where."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hybrid_rl.config.section import Arguments, Section


class RolloutConfig(Section):
    """Which engine generates."""

    engine: str = "rollouts.torch_engine:TorchEngine"
    """The rollout engine, built as `engine(policy, **args)`."""
    args: Arguments = Field(default_factory=dict)
    """Further arguments of the engine."""


class ClusterConfig(Section):
    """Who runs where."""

    executor: Literal["ray", "local"] = "ray"
    """`ray`: every worker is a Ray actor. `local`: the same classes in this process, for debuggers and notebooks."""
    rollout_workers: int = Field(default=1, ge=1)
    """Number of rollout workers."""
    reward_workers: int = Field(default=1, ge=1)
    """Number of reward workers."""
    scorer_processes: int = Field(default=2, ge=1)
    """Killable scorer processes of each reward worker, for the rewards that run in the pool."""
    threads_per_worker: int | None = Field(default=None, ge=1)
    """CPU threads of a worker's tensor operations. Unset: all cores (workers take turns)."""
    gpus_per_worker: float | None = Field(default=None, ge=0)
    """GPUs (or the share of one) that Ray sets aside for the actor and each rollout and reference worker. Unset: an
    equal share of the GPUs that Ray finds."""
    broadcast_timeout_s: float = Field(default=60.0, gt=0)
    """Where weights go from GPU to GPU by broadcast: seconds without a bucket of them after which a worker gives up. A
    worker that has died is noticed at once."""
