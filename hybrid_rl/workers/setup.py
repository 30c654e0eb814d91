"""What every worker is told when it starts, and what it does first."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from hybrid_rl.config import Config
from hybrid_rl.kept_media import keep_media
from hybrid_rl.machine.cache import fingerprint, machine_kernels
from hybrid_rl.machine.kernels import PLAIN, KernelChoice
from hybrid_rl.policy import Policy, device_and_dtype, load_policy
from hybrid_rl.quiet import quiet_transformers
from hybrid_rl.workers.memory import keep_freed_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """Attributes:
    config: the whole config of the run.
    checkpoint: folder whose weights are loaded instead of the config's model; None for the model itself.
    measured: what the driver found of its machine; a worker elsewhere finds out for itself.
    """

    config: Config
    checkpoint: str | None
    measured: KernelChoice | None = None

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

    def kernels(self) -> KernelChoice:
        """The kernels that this process is to use. Call after `prepare`, which sets the threads."""
        return kernels_here(self.config, self.measured)

    def prepare(self) -> None:
        """Quiet the libraries and set the number of threads, the same in every worker and on every executor."""
        quiet_transformers()
        keep_freed_memory()
        keep_media(self.config.machine.image_cache_mib)
        torch.set_num_threads(self.config.cluster.threads_per_worker or usable_cores())


def kernels_here(config: Config, measured: KernelChoice | None = None) -> KernelChoice:
    """What `machine.kernels` asks for on the machine of this process, with its present number of threads.

    Args:
        measured: is taken if it was measured on such a machine.
    """
    if config.machine.kernels == "plain":
        return PLAIN
    device, _ = device_and_dtype(config.model)
    if measured is not None and measured.machine == fingerprint(device):
        return measured
    return machine_kernels(device)


def measured_first(config: Config, recorded: KernelChoice | None = None) -> KernelChoice:
    """`kernels_here` with the threads of a worker, before workers start: together they would disturb each other.

    Args:
        recorded: of a run that goes on, what it has used so far. It is kept on a machine like the former one, though
            another measurement might choose otherwise: kernels differ in their last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(config.cluster.threads_per_worker or usable_cores())
    try:
        return kernels_here(config, recorded)
    finally:
        torch.set_num_threads(before)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
