"""Scorers reach nothing outside: no network, no secrets, no other process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool import isolation
from hybrid_rl.scorer_pool.loading import RewardSpec
from hybrid_rl.scorer_pool.pool import Case, ScorerPool

HERE = (str(Path(__file__).parent),)
SPECS = {name: RewardSpec(name, f"scorers.py:{name}", {}, HERE) for name in ("phone_home", "spies", "unruly")}
CONNECTS = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=2).sendall(b"secret")
except OSError as error:
    print(error.strerror)
else:
    print("connected")
one, other = socket.socketpair()  # local sockets stay: event loops and worker processes need them
one.sendall(b"x")
assert other.recv(1) == b"x"
"""


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def with_fence(fence: str, program: str) -> str:
    """What a fresh process prints behind one of the fences; skips where this system does not allow it."""
    code = f"import sys; sys.path.insert(0, {str(Path(isolation.__file__).parent)!r}); import isolation as i\n"
    code += f"allowed = i.{fence}()\nprint(allowed)\nif not allowed: sys.exit()\n{program}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    allowed, *printed = done.stdout.split("\n")
    if allowed != "True":
        pytest.skip(f"this system does not allow {fence}")
    return "\n".join(printed).strip()


def test_a_reward_cannot_open_a_connection(server: socket.socket) -> None:
    if not isolation.network_can_be_cut():
        pytest.skip("this system allows neither namespaces nor seccomp")
    text = "{} {}".format(*server.getsockname())
    pool = ScorerPool(SPECS, size=1)
    try:
        verdict, after = pool.run([Case("phone_home", {"text": text}, 5.0), Case("unruly", {"text": "four"})])
    finally:
        pool.close()
    assert verdict.outcome is Outcome.ERROR and verdict.value is None
    assert "Operation not permitted" in verdict.reason or "unreachable" in verdict.reason
    assert after.value == 4.0
    with pytest.raises(TimeoutError):
        server.accept()


@pytest.mark.parametrize(
    ("fence", "said"), [("leave_network", "Network is unreachable"), ("refuse_sockets", "Operation not permitted")]
)
def test_each_fence_holds_alone(server: socket.socket, fence: str, said: str) -> None:
    program = CONNECTS.format(port=server.getsockname()[1])
    assert with_fence(fence, program) == said
    with pytest.raises(TimeoutError):
        server.accept()


def test_without_a_fence_the_server_is_reached(server: socket.socket) -> None:
    """The counterpart: what the others look for would be seen."""
    program = CONNECTS.format(port=server.getsockname()[1])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "connected"
    server.accept()[0].close()


def test_a_reward_cannot_read_the_environment_of_the_run() -> None:
    with_fence("drop_rights", "")
    with open(f"/proc/{os.getpid()}/environ") as file:
        assert "PATH=" in file.read()
    pool = ScorerPool(SPECS, size=1)
    try:
        verdict = pool.run([Case("spies", {"text": f"{os.getpid()} PATH="}, 5.0)])[0]
    finally:
        pool.close()
    assert verdict.outcome is Outcome.ERROR and "Permission denied" in verdict.reason


def test_rights_are_dropped_and_the_user_stays() -> None:
    assert with_fence("drop_rights", "import os; print(os.getuid(), os.getgid())") == f"{os.getuid()} {os.getgid()}"
