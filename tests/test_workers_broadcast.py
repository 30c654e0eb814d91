"""A broadcast of weights that a member leaves ends soon, in one sentence, whoever it was and however it left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from test_workers_weights import Sender, Taker, parameters

from hybrid_rl.config import Config
from hybrid_rl.errors import BroadcastBroken, WorkerDied
from hybrid_rl.workers.broadcast import BroadcastMember, BroadcastWeights, Rendezvous, free_address, join

PATIENT_S = 600.0
"""Longer than any test waits: what ends before is not ended by it."""


def member(rendezvous: Rendezvous, rank: int, pipe: Connection) -> None:
    """A process of its own: the sender joins and does nothing more, a receiver says what became of it."""
    import torch.distributed

    pipe.send("here")
    pipe.recv()
    joined = BroadcastMember(rendezvous, rank, torch.device("cpu"))
    pipe.send("joined")
    if rank == 0:
        time.sleep(PATIENT_S)
    try:
        joined.receive(parameters(None), torch.float32)
    except BroadcastBroken as error:
        pipe.send(str(error))


@pytest.mark.parametrize(("how", "timeout_s"), [(signal.SIGKILL, PATIENT_S), (signal.SIGSTOP, 10.0)])
def test_a_receiver_whose_sender_is_gone_says_so(how: signal.Signals, timeout_s: float) -> None:
    """A sender that is killed is noticed by its connection, one that hangs by the timeout."""
    context = multiprocessing.get_context("spawn")
    meeting = Rendezvous(address=free_address(), size=2, backend="gloo", timeout_s=timeout_s)
    pipes = [context.Pipe() for _ in range(2)]
    processes: list[BaseProcess] = [context.Process(target=member, args=(meeting, r, pipes[r][1])) for r in range(2)]
    try:
        for process in processes:
            process.start()
        assert [pipe.recv() for pipe, _ in pipes] == ["here", "here"]
        for pipe, _ in pipes:
            pipe.send("go")
        assert [pipe.recv() for pipe, _ in pipes] == ["joined", "joined"]
        os.kill(processes[0].pid or 0, how)
        said = pipes[1][0].recv()
    finally:
        for process in processes:
            process.kill()
    assert said == (
        f"the broadcast of weights broke off: another of its workers has died, or was silent for {timeout_s:g} seconds "
        f"(cluster.broadcast_timeout_s)"
    )


class DyingSender(Sender):
    """Ends when it is asked to send."""

    def broadcast_weights(self) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


class DeafTaker(Taker):
    """Waits for weights as NCCL does: it does not notice that nobody sends them."""

    def receive_broadcast(self) -> None:
        time.sleep(PATIENT_S)


def test_the_driver_names_the_sender_that_died(
    small_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real Ray actors, joined by gloo, of which one is killed: one of the others complains, one goes on waiting."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    from hybrid_rl.interrupt import StopSignal
    from hybrid_rl.workers.ray_cluster import RayCluster

    with StopSignal() as stop:
        cluster = RayCluster(small_config().cluster, stop, num_gpu_workers=0)
        try:
            sender, takers = cluster.start(DyingSender, 3), [cluster.start(DeafTaker), cluster.start(Taker)]
            join(sender, takers, timeout_s=PATIENT_S, backend="gloo")
            with pytest.raises(WorkerDied, match=r"^a DyingSender has died: its process crashed, was killed"):
                BroadcastWeights(sender).send_to(takers)
        finally:
            cluster.close()
