"""What every worker is told when it starts, and what it does first."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from hybrid_rl.config import Config
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.quiet import quiet_transformers
from hybrid_rl.workers.memory import keep_freed_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """Attributes:
    config: the whole config of the run.
    checkpoint: folder whose weights are loaded instead of the config's model; None for the model itself.
    """

    config: Config
    checkpoint: str | None

    def load(self, *, trainable: bool = False) -> Policy:
        """Set up this process and load the policy."""
        self.prepare()
        return load_policy(
            self.config.model,
            self.config.modes,
            seed=self.config.run.seed,
            search=self.config.search,
            checkpoint=self.checkpoint,
            trainable=trainable,
        )

    def prepare(self) -> None:
        """Quiet the libraries and set the number of threads, the same in every worker and on every executor."""
        quiet_transformers()
        keep_freed_memory()
        torch.set_num_threads(self.config.cluster.threads_per_worker or usable_cores())


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
