"""What runs in the other processes: the nursery, which imports the rewards once, and the scorers it forks.

A scorer is a fork of the nursery, so that a replacement is there in milliseconds, with every library imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import signal
import socket
import time
from typing import Any

from hybrid_rl.scorer_pool.isolation import drop_rights, leave_network, refuse_sockets
from hybrid_rl.scorer_pool.loading import LoadedReward, RewardSpec, load_reward, read_returned
from hybrid_rl.scorer_pool.warming import warm
from hybrid_rl.scorer_pool.wire import BrokenWire, receive, send

_MAX_MESSAGE = 2000
"""Characters of an error that travel back."""
_PR_SET_PDEATHSIG = 1
_PAGE_BYTES = resource.getpagesize()


def nursery(descriptor: int) -> None:
    """Serve the parent's requests until it is gone. One thread, so that forking is safe."""
    leave_network()  # once, before anything is imported: a new network costs more than a new scorer may
    channel = socket.socket(fileno=descriptor)
    rewards: dict[RewardKey, LoadedReward] = {}
    children: set[int] = set()
    leaving: set[int] = set()
    while True:
        try:
            request = pickle.loads(receive(channel))
        except BrokenWire:
            break
        # A process number stays taken until it is reaped here, so the parent can never kill a stranger.
        leaving |= {request["pid"]} if request["do"] == "reap" else set()
        for pid in list(leaving):
            if os.waitpid(pid, os.WNOHANG)[0]:
                leaving.discard(pid)
                children.discard(pid)
        if request["do"] == "load":
            send(channel, json.dumps({"error": _load(rewards, request["spec"])}).encode())
        elif request["do"] == "fork":
            pid = _fork(channel, rewards, request["memory_bytes"])
            children.add(pid)
            send(channel, json.dumps({"pid": pid}).encode())
    for pid in children:
        kill_group(pid)


RewardKey = tuple[str, str, str, tuple[str, ...]]


def key_of(spec: RewardSpec) -> RewardKey:
    """Equal for equal rewards, so that a process loads each once."""
    return spec.name, spec.target, json.dumps(dict(spec.args), sort_keys=True, default=repr), spec.search


def _load(rewards: dict[RewardKey, LoadedReward], spec: RewardSpec) -> str | None:
    """Load a reward and warm it up; the sentence that is wrong with it, or None."""
    if key_of(spec) in rewards:
        return None
    try:
        loaded = load_reward(spec)
        warm(loaded.function)
    except BaseException as error:  # a module that calls sys.exit must not take the nursery with it
        return str(error) or type(error).__name__
    rewards[key_of(spec)] = loaded
    return None


def _fork(channel: socket.socket, rewards: dict[RewardKey, LoadedReward], memory_bytes: int) -> int:
    _, (descriptor, *_), _, _ = socket.recv_fds(channel, 1, 1)
    pid = os.fork()
    if pid:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # it has done so itself and is gone already
            os.setpgid(pid, pid)
        return pid
    try:
        os.setpgid(0, 0)
        channel.close()
        _confine(memory_bytes)
        _score_for_ever(socket.socket(fileno=descriptor), rewards)
    finally:
        os._exit(1)


def _confine(memory_bytes: int) -> None:
    """A limit on memory, no core files, death with the nursery, no rights over others and no network.

    Where the kernel allows no fence against the network the run goes on; the plan of the run has said so.
    """
    import ctypes

    drop_rights()

    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * _PAGE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    refuse_sockets()


def _score_for_ever(channel: socket.socket, rewards: dict[RewardKey, LoadedReward]) -> None:
    while True:
        try:
            frame = receive(channel)
        except BrokenWire:
            return
        key, arguments, count = pickle.loads(frame)
        del frame
        send(channel, b'{"started": true}')
        began = time.perf_counter()
        reply = _score(rewards[key], arguments, count) | {"seconds": time.perf_counter() - began}
        send(channel, json.dumps(reply).encode())
        if "memory" in reply:
            return


def _score(reward: LoadedReward, arguments: dict[str, Any], count: int | None) -> dict[str, Any]:
    try:
        returned = reward.function(**arguments)
    except MemoryError:
        return {"memory": True}
    except BaseException as error:  # SystemExit too: a scorer's failure is reported, whatever it is
        return {"error": f"failed: {type(error).__name__}: {error}"[:_MAX_MESSAGE]}
    try:
        scores = read_returned(returned, count)
    except ValueError as error:
        return {"error": str(error)[:_MAX_MESSAGE]}
    return {"scores": [None if score is None else [score.value, dict(score.parts)] for score in scores]}


def kill_group(pid: int) -> None:
    """Kill a scorer with everything that it has started."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
