"""Handing weights from the actor to rollout workers: `python -m benchmarks.weight_sync [--sizes 30m] [--receivers 2]`.

Cases: `local` (sender and receivers in one process) and `ray` (Ray actors on one machine). The peer is what one would
write first: the whole state dict as one object, through the driver. It moves the same bytes. `peak_memory` is what
buckets are for: by how much the resident memory of driver, sender and a receiver rose at its peak, above what it was
before, added up (pages of the object store count in each process that has them mapped). Prints JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.report_form import case, print_report
from benchmarks.sides import forget_peak, peak_gib, resident_gib
from hybrid_rl.config.cluster import ClusterConfig
from hybrid_rl.interrupt import StopSignal
from hybrid_rl.quiet import quiet_environment
from hybrid_rl.workers.cluster import Cluster, Handle, InProcess, LocalCluster, gather
from hybrid_rl.workers.sync import ActorWeights
from hybrid_rl.workers.weights import BUCKET_BYTES, Bucket, WeightReceiver, plan_buckets, read_bucket

_MILLIONS = {"tiny": 1, "30m": 30, "120m": 120, "500m": 500}


def parameters(millions: int, seed: int) -> dict[str, Tensor]:
    """So many matrices of 1,024 x 1,024 values."""
    generator = torch.Generator().manual_seed(seed)
    return {f"layers.{i}.weight": torch.randn(1024, 1024, generator=generator) for i in range(max(1, millions))}


class Sender:
    """As the actor, and as one would write it first."""

    def __init__(self, millions: int) -> None:
        self._own = parameters(millions, 1)

    def weight_buckets(self) -> int:
        """See `ActorWorker`."""
        self._plan = plan_buckets(self._own, torch.float32)
        return len(self._plan)

    def weight_bucket(self, number: int) -> Bucket:
        """See `ActorWorker`."""
        return read_bucket(self._own, self._plan, number, torch.float32, 1)

    def whole(self) -> dict[str, Any]:
        """The state dict as arrays, copied, as sending it elsewhere needs."""
        return {name: value.numpy().copy() for name, value in self._own.items()}

    def begin(self) -> None:
        """Forget the peak of memory so far."""
        _begin()

    def risen(self) -> float:
        """GiB that the resident memory rose at its peak since `begin`."""
        return _risen()


class Receiver:
    """As a rollout worker."""

    def __init__(self, millions: int) -> None:
        self._own = parameters(millions, 2)
        self._receiver = WeightReceiver(self._own)

    def load_bucket(self, bucket: Bucket) -> None:
        """See `RolloutWorker`."""
        self._receiver.take(bucket)

    def load_whole(self, weights: dict[str, Any]) -> None:
        """The state dict at once."""
        for name, value in weights.items():
            self._own[name].copy_(torch.from_numpy(value.copy()))

    def equals(self, seed: int) -> bool:
        """The weights are those of a seed, to the last bit."""
        return all(torch.equal(self._own[name], value) for name, value in parameters(len(self._own), seed).items())

    def begin(self) -> None:
        """Forget the peak of memory so far."""
        _begin()

    def risen(self) -> float:
        """GiB that the resident memory rose at its peak since `begin`."""
        return _risen()


_before: dict[str, float] = {}


def _begin() -> None:
    forget_peak()
    _before["gib"] = resident_gib()


def _risen() -> float:
    return max(0.0, peak_gib() - _before["gib"])


def measure(name: str, cluster: Cluster, millions: int, receivers: int, runs: int) -> dict[str, Any]:
    """Buckets and the whole state dict in turn."""
    sender = cluster.start(Sender, millions)
    others = [cluster.start(Receiver, millions) for _ in range(receivers)]

    def buckets() -> None:
        ActorWeights(sender).send_to(others)

    def whole() -> None:
        weights = sender.call("whole").result()
        gather([other.call("load_whole", weights) for other in others])

    samples: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for round_ in range(runs + 1):
        for side, send in (("ours", buckets), ("peer", whole)):
            figures = _timed(send, [sender, others[0]], 4.0 * 2**20 * millions * receivers)
            if round_:
                samples[side].append(figures)
    exact = [handle.call("equals", 1).result() for handle in others]
    return case(
        name,
        samples["ours"],
        samples["peer"],
        parameters_millions=millions,
        receivers=receivers,
        bucket_mib=BUCKET_BYTES / 2**20,
        equal_to_the_last_bit=all(exact),
    )


def _timed(send: Callable[[], None], workers: Sequence[Handle], sent_bytes: float) -> dict[str, float]:
    """One transfer. Without processes of their own, workers are this one and count once."""
    apart = [] if all(isinstance(worker, InProcess) for worker in workers) else workers
    _begin()
    gather([worker.call("begin") for worker in apart])
    start = time.perf_counter()
    send()
    wall = time.perf_counter() - start
    risen = [_risen(), *gather([worker.call("risen") for worker in apart])]
    names = ("driver_gib", "sender_gib", "receiver_gib")
    found = dict(zip(names, risen, strict=False))
    return {"wall": wall, "gib_per_s": sent_bytes / 2**30 / wall, "peak_memory": sum(risen), **found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.weight_sync",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", nargs="+", choices=list(_MILLIONS), default=["30m", "120m"])
    parser.add_argument("--receivers", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=("local", "ray"), default=["local", "ray"])
    options = parser.parse_args(arguments)
    quiet_environment()
    cases = []
    with StopSignal() as stop:
        for kind in options.cases:
            cluster = _cluster(kind, stop)
            for size in options.sizes:
                millions = _MILLIONS[size]
                cases.append(measure(f"{kind}_{size}", cluster, millions, options.receivers, options.runs))
            cluster.close()
    print_report(cases, peer="the whole state dict as one object")


def _cluster(kind: str, stop: StopSignal) -> Cluster:
    if kind == "local":
        return LocalCluster(stop)
    from hybrid_rl.workers.ray_cluster import RayCluster

    return RayCluster(ClusterConfig(), stop, num_gpu_workers=0)


if __name__ == "__main__":
    main()
