"""What was found of a machine, kept for the next run: equal hardware, libraries and threads are not measured twice."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from hybrid_rl.machine.kernels import KernelChoice
from hybrid_rl.machine.probe import probe

_FORM = 1
"""Raised when what is measured, or how, changes."""


def machine_kernels(device: torch.device) -> KernelChoice:
    """What this machine is good at with torch's present number of threads: measured, or found in the cache.

    Where other processes keep the machine busy the figures are used, but not kept.
    """
    machine = fingerprint(device)
    path = _cache_folder() / f"{machine}.json"
    try:
        return KernelChoice.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):  # not there, or from elsewhere
        pass
    found = replace(probe(device, device_name(device)), machine=machine)
    if not _busy():
        _keep(path, found)
    return found


def fingerprint(device: torch.device) -> str:
    """A digest of everything that the figures depend on."""
    parts = [
        str(_FORM),
        device_name(device),
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        str(torch.get_num_threads()),
        platform.machine(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def device_name(device: torch.device) -> str:
    """Name of the graphics card, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as file:
            lines = (line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
            return next(lines, "") or platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hybrid-rl" / "machine"


def _busy() -> bool:
    """Others leave less than half of the cores, so that the figures are no measure of the machine."""
    cores = os.cpu_count() or 1
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5 * cores + 1


def _keep(path: Path, found: KernelChoice) -> None:
    """Write in one move. A cache is a convenience: without it the next run measures again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(found.to_json(), file)
        Path(name).replace(path)
    except OSError:
        return
