"""Cores and executor of the runs of an ablation, where the config leaves them open."""

from __future__ import annotations

from collections.abc import Sequence

from hybrid_rl.config import Config
from hybrid_rl.preflight import Material

SMALL_MODEL = 20_000_000
"""Parameters up to which runs stand side by side, with one thread each: products this small leave a second thread
little to do, a second run all of it. A judgement, not a measured limit. What speaks against more runs is memory: beyond
this size the optimizer, reference and activations of a run take gigabytes, and it is the user who knows how many fit
(`--jobs`)."""
CORES_A_RUN = 2
"""Cores of a run of a larger model: those of a small laptop."""


def is_small(materials: Sequence[Material]) -> bool:
    """Whether the models of all arms are small enough to be trained side by side."""
    return all(material.num_parameters <= SMALL_MODEL for material in materials)


def settle(config: Config, max_jobs: int | None, *, small: bool, cores: int) -> Config:
    """A run's config with its threads, which are the cores that it counts as, and its executor.

    What the config says stays. Where it says nothing, `max_jobs` runs share the cores out; without it a small model
    gets one thread, and its workers live in the run's own process, since Ray's processes take longer to start than such
    a run takes for several steps. Both executors give the same metrics.

    Args:
        cores: of this machine.
    """
    cluster = config.cluster
    changes: dict[str, object] = {}
    if cluster.threads_per_worker is None:
        own = 1 if small else min(CORES_A_RUN, cores)
        changes["threads_per_worker"] = max(1, cores // max_jobs) if max_jobs else own
    one_each = cluster.rollout_workers == cluster.reward_workers == 1
    if small and one_each and "executor" not in cluster.model_fields_set:
        changes["executor"] = "local"
    return config.model_copy(update={"cluster": cluster.model_copy(update=changes)})
