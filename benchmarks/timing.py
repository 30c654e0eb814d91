"""Honest seconds on a machine that may be shared: candidates run in turn, and every run is kept."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], runs: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of every candidate's `runs` runs, A B A B, so that a slow spell of the machine falls on all of them.

    With `warm_up` a first round is not counted: it fills caches and touches memory for the first time.
    """
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(runs + warm_up):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if round_ >= warm_up:
                samples[name].append(time.perf_counter() - start)
    return samples


def product(rows: int, inner: int, columns: int) -> tuple[Callable[[], Any], float]:
    """A float32 matrix product [rows, inner] x [inner, columns] into ready memory, and its operations."""
    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    out = torch.empty(rows, columns)
    return (lambda: torch.mm(a, b, out=out)), 2.0 * rows * inner * columns


def machine() -> dict[str, Any]:
    """What the figures were taken on, and who else was there."""
    return {
        "processor": _processor_name(),
        "torch": torch.__version__,
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16_instructions": torch.backends.mkldnn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "load_1_minute": os.getloadavg()[0],
        "running_processes": _running_processes(),
    }


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def _running_processes() -> int | None:
    """Threads on a processor at this moment in the whole system, this one not counted; None where it cannot be told."""
    try:
        with open("/proc/loadavg") as file:
            return int(file.read().split()[3].split("/")[0]) - 1
    except OSError:
        return None
