"""Weights move in buckets of bounded size, to the last bit, and a worker that dies meanwhile is named."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import hand_over
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hybrid_rl.config import Config
from hybrid_rl.errors import EngineMismatch, WorkerDied
from hybrid_rl.workers.actor import ActorWorker
from hybrid_rl.workers.broadcast import BroadcastMember, BroadcastWeights, Rendezvous, can_broadcast, free_address, join
from hybrid_rl.workers.cluster import InProcess, gather
from hybrid_rl.workers.reference import ReferenceWorker
from hybrid_rl.workers.rollout import RolloutWorker
from hybrid_rl.workers.setup import WorkerSetup
from hybrid_rl.workers.sync import ActorWeights
from hybrid_rl.workers.weights import Bucket, WeightReceiver, plan_buckets, read_bucket


def parameters(seed: int | None, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Some parameters of several ranks; zeros without a seed."""
    generator = torch.Generator().manual_seed(seed or 0)
    shapes = {"table": (50, 8), "norm": (8,), "scale": (), "kernel": (4, 3, 2, 2)}
    return {
        name: (torch.randn(shape, generator=generator) if seed else torch.zeros(shape)).to(dtype)
        for name, shape in shapes.items()
    }


class Sender:
    """As the actor, with buckets of 100 bytes."""

    def __init__(self, seed: int) -> None:
        self._own = parameters(seed)

    def become(self, seed: int) -> None:
        self._own = parameters(seed)

    def weight_buckets(self) -> int:
        self._plan = plan_buckets(self._own, torch.float32, 100)
        return len(self._plan)

    def weight_bucket(self, number: int) -> Bucket:
        return read_bucket(self._own, self._plan, number, torch.float32, 7)

    def meeting_point(self) -> str:
        return free_address()

    def join_broadcast(self, rendezvous: Rendezvous, rank: int) -> None:
        self._member = BroadcastMember(rendezvous, rank, torch.device("cpu"))

    def broadcast_weights(self) -> int:
        self._member.send(self._own, torch.float32)
        return 8


class Taker:
    """As a rollout worker; `die` makes it end at its second bucket."""

    def __init__(self, die: bool = False) -> None:
        self._own = parameters(None)
        self._receiver = WeightReceiver(self._own)
        self._die = die

    def load_bucket(self, bucket: Bucket) -> None:
        if self._die and bucket.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self._receiver.take(bucket)

    def load_buckets(self, *buckets: Bucket) -> None:
        for bucket in buckets:
            self.load_bucket(bucket)

    def join_broadcast(self, rendezvous: Rendezvous, rank: int) -> None:
        self._member = BroadcastMember(rendezvous, rank, torch.device("cpu"))

    def receive_broadcast(self) -> None:
        self._member.receive(self._own, torch.float32)

    def end_broadcast(self, version: int) -> None:
        assert version == 8

    def weights(self) -> dict[str, Tensor]:
        return self._own


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    limit=st.integers(1, 200),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_buckets_hold_every_value_once_and_no_more_than_their_size(
    sizes: list[int], limit: int, dtype: torch.dtype
) -> None:
    own = {f"p{i}": torch.zeros(size) for i, size in enumerate(sizes)}
    plan = plan_buckets(own, dtype, limit)
    seen = [(s.name, i) for spans in plan for s in spans for i in range(s.start, s.stop)]
    assert seen == [(name, i) for name, p in own.items() for i in range(p.numel())]
    for spans in plan:
        assert sum(s.stop - s.start for s in spans) * dtype.itemsize <= max(limit, dtype.itemsize)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_arrive_to_the_last_bit(dtype: torch.dtype) -> None:
    sent, taken = parameters(3), parameters(None, dtype)
    receiver = WeightReceiver(taken)
    plan = plan_buckets(sent, dtype, 100)
    assert len(plan) > 3
    for number in range(len(plan)):
        receiver.take(read_bucket(sent, plan, number, dtype, 1))
        assert receiver.complete == (number == len(plan) - 1)
    for name, value in taken.items():
        assert torch.equal(value, sent[name].to(dtype))


def test_within_a_process_nothing_lies_between_sender_and_receiver() -> None:
    sent = parameters(3)
    bucket = read_bucket(sent, plan_buckets(sent, torch.float32), 0, torch.float32, 1)
    sent["norm"].fill_(5)
    assert all((values == 5).all() for span, values in bucket.pieces if span.name == "norm")  # a view, no copy


def test_other_models_and_lost_buckets_are_found() -> None:
    sent = parameters(3)
    plan = plan_buckets(sent, torch.float32, 400)

    def take(receiver: WeightReceiver, *numbers: int) -> None:
        for number in numbers:
            receiver.take(read_bucket(sent, plan, number, torch.float32, 1))

    without = {name: p for name, p in parameters(None).items() if name != "table"}
    with pytest.raises(EngineMismatch, match="table"):
        take(WeightReceiver(without), 0)
    more = parameters(None) | {"another": torch.zeros(3)}
    with pytest.raises(EngineMismatch, match="another"):
        take(WeightReceiver(more), *range(len(plan)))
    with pytest.raises(EngineMismatch, match="did not all arrive"):
        take(WeightReceiver(parameters(None)), 0, *range(2, len(plan)))


def test_all_workers_of_a_run_have_the_actor_s_weights(small_config: Callable[..., Config]) -> None:
    config = small_config()
    actor = ActorWorker(WorkerSetup(config=config, checkpoint=None))
    others = WorkerSetup(config=small_config("run.seed=5"), checkpoint=None)
    rollout, reference = RolloutWorker(others), ReferenceWorker(others)
    hand_over(actor, rollout, reference)
    for name, parameter in actor._policy.trained_parameters().items():
        for worker in (rollout, reference):
            assert torch.equal(worker._policy.trained_parameters()[name], parameter)


def test_two_buckets_are_on_their_way_at_most() -> None:
    """One is made while the one before is being loaded."""
    events: list[str] = []

    class Noting(Taker):
        def load_bucket(self, bucket: Bucket) -> None:
            events.append(f"load {bucket.number}")
            super().load_bucket(bucket)

    class Making(Sender):
        def weight_bucket(self, number: int) -> Bucket:
            events.append(f"make {number}")
            return super().weight_bucket(number)

    sender = Making(3)
    ActorWeights(InProcess(lambda: sender)).send_to([InProcess(Noting)])
    assert events[:4] == ["make 0", "load 0", "make 1", "load 1"]
    assert len(events) == 2 * sender.weight_buckets()


def test_only_workers_with_a_gpu_each_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL joins no two processes on one card, and knows no CPUs."""
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    assert can_broadcast(["GPU-1", "GPU-2", "GPU-3"])
    assert not can_broadcast(["GPU-1", "GPU-2", "GPU-1"])
    assert not can_broadcast(["", "GPU-2"]) and not can_broadcast(["", ""])
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    assert not can_broadcast(["GPU-1", "GPU-2"])


def test_between_processes(small_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """Real Ray actors: equal to the last bit, nothing comes through the driver, and a dead receiver is named."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    from hybrid_rl.interrupt import StopSignal
    from hybrid_rl.workers.ray_cluster import RayCluster

    with StopSignal() as stop:
        cluster = RayCluster(small_config().cluster, stop, num_gpu_workers=0)
        try:
            sender = cluster.start(Sender, 3)
            taker, dying = cluster.start(Taker), cluster.start(Taker, True)
            kept: Any = sender.call("weight_buckets").result() and sender.call_kept("weight_bucket", 0).result()
            assert type(kept).__name__ == "ObjectRef"
            ActorWeights(sender).send_to([taker])
            found: Mapping[str, Tensor] = taker.call("weights").result()
            assert all(torch.equal(found[name], value) for name, value in parameters(3).items())
            sender.call("become", 5)
            join(sender, [taker], timeout_s=60, backend="gloo")
            BroadcastWeights(sender).send_to([taker])
            found = taker.call("weights").result()
            assert all(torch.equal(found[name], value) for name, value in parameters(5).items())
            sender.call("become", 4)
            gather(ActorWeights(sender).send_ahead([taker]))
            found = taker.call("weights").result()
            assert all(torch.equal(found[name], value) for name, value in parameters(4).items())
            with pytest.raises(WorkerDied, match="a Taker has died"):
                ActorWeights(sender).send_to([taker, dying])
        finally:
            cluster.close()
