"""Weights from the actor's GPU to those of the rollout workers by broadcast, which never enters host memory.

`torch.distributed` with NCCL, for workers that have a GPU each: NCCL does not join two processes on one card. Elsewhere
weights go in buckets through the object store (`sync`). The same code runs with gloo on CPUs, which is how it is
tested. Every process cuts its parameters into the same buckets, one of which is all the memory that a transfer takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from hybrid_rl.errors import BroadcastBroken, EngineMismatch
from hybrid_rl.workers.cluster import Handle, gather, gather_joined
from hybrid_rl.workers.sync import ActorWeights
from hybrid_rl.workers.weights import Span, plan_buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where the members of a broadcast meet.

    Attributes:
        address: `tcp://host:port` on the sender's node.
        size: members; the sender is number 0.
        backend: `nccl`, or `gloo` on CPUs.
        timeout_s: how long a member waits for the others, at the meeting and for each bucket.
    """

    address: str
    size: int
    backend: str
    timeout_s: float


class BroadcastMember:
    """A process that sends or receives; made in all members at the same time, which wait for each other.

    Raises:
        BroadcastBroken: another member has died, or is silent for longer than the timeout. With NCCL torch ends a
            process that waits for too long, and the driver says that it has died.
    """

    def __init__(self, rendezvous: Rendezvous, rank: int, device: torch.device) -> None:
        import torch.distributed

        self._device, self._timeout_s = device, rendezvous.timeout_s
        with self._others_needed():
            torch.distributed.init_process_group(
                rendezvous.backend,
                init_method=rendezvous.address,
                world_size=rendezvous.size,
                rank=rank,
                timeout=timedelta(seconds=rendezvous.timeout_s),
            )

    def send(self, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """Give all others these parameters, cast to `dtype`."""
        plan = plan_buckets(parameters, dtype)
        self._agree(plan)
        for spans in plan:
            pieces = [parameters[s.name].detach().reshape(-1)[s.start : s.stop].to(dtype) for s in spans]
            self._broadcast(torch.cat(pieces).to(self._device))

    @torch.no_grad()
    def receive(self, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """Copy what is sent into these parameters, in place.

        Raises:
            EngineMismatch: the sender has other parameters.
        """
        plan = plan_buckets(parameters, dtype)
        self._agree(plan)
        for spans in plan:
            values = torch.empty(sum(s.stop - s.start for s in spans), dtype=dtype, device=self._device)
            self._broadcast(values)
            for span, piece in zip(spans, values.split([s.stop - s.start for s in spans]), strict=True):
                parameters[span.name].view(-1)[span.start : span.stop].copy_(piece)

    def _agree(self, plan: Sequence[Sequence[Span]]) -> None:
        """All members have cut the same parameters into the same buckets."""
        digest = hashlib.blake2b(repr(plan).encode(), digest_size=7).digest()
        own = torch.tensor([int.from_bytes(digest, "big")], device=self._device)
        sent = own.clone()
        self._broadcast(sent)
        if not torch.equal(own, sent):
            raise EngineMismatch("the actor's parameters are not this worker's; their models differ")

    def _broadcast(self, values: Tensor) -> None:
        with self._others_needed():
            torch.distributed.broadcast(values, src=0)

    @contextlib.contextmanager
    def _others_needed(self) -> Iterator[None]:
        """What `torch.distributed` says of a member that is gone differs by backend; all of it means this."""
        try:
            yield
        except RuntimeError as error:
            raise BroadcastBroken(
                f"the broadcast of weights broke off: another of its workers has died, or was silent for "
                f"{self._timeout_s:g} seconds (cluster.broadcast_timeout_s)"
            ) from error


@dataclass(frozen=True, slots=True)
class BroadcastWeights(ActorWeights):
    """As `ActorWeights`, for receivers that have joined."""

    def send_to(self, receivers: Sequence[Handle]) -> None:
        """See `ActorWeights.send_to`. Whoever dies is noticed at once, though the others may go on waiting."""
        sending = self.actor.call("broadcast_weights")
        version, *_ = gather_joined([sending, *(receiver.call("receive_broadcast") for receiver in receivers)])
        gather([receiver.call("end_broadcast", version) for receiver in receivers], interruptible=False)


def join(actor: Handle, receivers: Sequence[Handle], timeout_s: float, backend: str = "nccl") -> None:
    """Bring sender and receivers together."""
    address = actor.call("meeting_point").result()
    meeting = Rendezvous(address=address, size=1 + len(receivers), backend=backend, timeout_s=timeout_s)
    gather_joined([member.call("join_broadcast", meeting, rank) for rank, member in enumerate((actor, *receivers))])


def can_broadcast(devices: Sequence[str]) -> bool:
    """Each of these workers has a GPU to itself, and NCCL is there.

    Args:
        devices: what `device_identity` says in each worker.
    """
    apart = len(set(devices)) == len(devices) and all(devices)
    return apart and torch.distributed.is_available() and torch.distributed.is_nccl_available()


def device_identity(device: torch.device) -> str:
    """Tells cards apart, over all nodes; empty for a CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


def free_address() -> str:
    """A free port of this node, as its peers reach it."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
    return f"tcp://{socket.gethostbyname(socket.gethostname())}:{port}"
