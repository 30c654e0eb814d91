"""Libraries that would phone home, draw bars, warn about nothing or hoard are told not to, before they are imported."""

from __future__ import annotations

import os

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # A thread that waits for the others of its process sleeps. Awake it holds the core that the one it waits for needs,
    # where processes share cores. But first it looks for a moment, far below a millisecond: between two small
    # products sleep costs decoding much of its time, on virtual machines most.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "5000",
    # oneDNN compiles a product for each number of rows, half a MiB each, and keeps 1,024 of them; torch's binding keeps
    # as many beside them. Sampling has ever new numbers of rows; an update has few, whose products should find a place.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
    "TRANSFORMERS_VERBOSITY": "error",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Of a cluster that we start: no idle processes for tasks, of which we have none, and no figures that nobody reads.
    # Each process of Ray wakes up a hundred times a second, in the midst of our products.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
}


def quiet_environment() -> dict[str, str]:
    """Set the variables in this process, where the user has not, and return them for worker processes."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return {name: os.environ[name] for name in _ENVIRONMENT}


def quiet_transformers() -> None:
    """No progress bars and only errors from transformers."""
    quiet_environment()
    import torch

    if not torch.cuda.is_available():
        # DeepSpeed, which transformers imports where it is installed, otherwise warns that it found no accelerator.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
