"""What libraries are told before they are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

_GROWTH = """
import os
{before}
import psutil, torch
from torch.nn.functional import linear
torch.backends.mkldnn.matmul.fp32_precision = "bf16"
x, w = torch.randn(500, 256), torch.randn(512, 256)
linear(x, w)
start = psutil.Process().memory_info().rss
for rows in range(1, 500):
    linear(x[:rows], w)
print((psutil.Process().memory_info().rss - start) / 2**20)
"""


def growth_mib(before: str) -> float:
    """Memory that products of ever new numbers of rows leave behind, in a process of their own."""
    found = subprocess.run(
        [sys.executable, "-c", _GROWTH.format(before=before)], capture_output=True, text=True, check=True
    )
    return float(found.stdout)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")
def test_memory_does_not_grow_with_every_new_number_of_rows() -> None:
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    hoarding = growth_mib("; ".join(f"os.environ[{name!r}] = '1024'" for name in names))
    told = growth_mib(
        f"for name in {names!r}: os.environ.pop(name, None)\n"
        "from hybrid_rl.quiet import quiet_environment; quiet_environment()"
    )
    assert told < 0.5 * hoarding


_IDLE = """
import psutil
from hybrid_rl.config.cluster import ClusterConfig
from hybrid_rl.interrupt import StopSignal
from hybrid_rl.workers.ray_cluster import RayCluster
from fractions import Fraction
with StopSignal() as stop:
    cluster = RayCluster(ClusterConfig(), stop, num_gpu_workers=0)
    worker = cluster.start(Fraction, 3)
    assert worker.call("limit_denominator").result() == 3
    children = psutil.Process().children(recursive=True)
    print(*(child.name() for child in children))
    cluster.close()
"""


def test_a_cluster_of_our_own_has_no_processes_that_do_nothing() -> None:
    """Ray starts some ahead, for tasks; each wakes up a hundred times a second and disturbs those that work."""
    found = subprocess.run([sys.executable, "-c", _IDLE], capture_output=True, text=True, check=True).stdout
    assert "ray::Fraction" in found and "ray::IDLE" not in found
