"""The parent's side of the nursery: one a process, started when the first scorer is needed."""

from __future__ import annotations

import atexit
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from hybrid_rl.errors import PluginError
from hybrid_rl.scorer_pool.child import kill_group
from hybrid_rl.scorer_pool.loading import RewardSpec
from hybrid_rl.scorer_pool.wire import BrokenWire, receive, send

_KEPT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "PYTHONHASHSEED",
    "XDG_CACHE_HOME",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
)
"""Variables that a scorer inherits. An allow-list: a key or token of the user's is on no list of names to drop."""
_LOAD_S = 300.0
"""How long importing a reward may take."""
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from hybrid_rl.scorer_pool.child import nursery; nursery(int(sys.argv[1]))"
)


class Nursery:
    """Imports rewards once and forks scorers from there.

    It leads a process group of its own, so that Ctrl-C in a terminal reaches the parent alone; it ends when the parent
    closes the channel or dies, and takes its scorers with it.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: a file called json.py in the working directory is not the standard library's.
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                env=scorer_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        ours.settimeout(_LOAD_S)
        self._channel = ours
        self._loading: list[RewardSpec] = []
        self._lock = threading.RLock()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def begin_loading(self, spec: RewardSpec) -> None:
        """Ask for a reward to be imported; does not wait."""
        with self._lock:
            self._send({"do": "load", "spec": spec})
            self._loading.append(spec)

    def wait(self) -> None:
        """Wait until what was asked for is imported.

        Raises:
            PluginError: a reward does not load there.
        """
        with self._lock:
            while self._loading:
                spec = self._loading.pop(0)
                error = self._reply(spec)["error"]
                if error:
                    raise PluginError(f"rewards.{spec.name}: '{spec.target}' does not load in a scorer: {error}")

    def fork(self, memory_bytes: int) -> tuple[int, socket.socket]:
        """A fresh scorer: its process number and our end of its channel."""
        with self._lock:
            self.wait()
            ours, theirs = socket.socketpair()
            with theirs:
                self._send({"do": "fork", "memory_bytes": memory_bytes})
                socket.send_fds(self._channel, [b"f"], [theirs.fileno()])
                pid = int(self._reply(None)["pid"])
            return pid, ours

    def kill(self, pid: int) -> None:
        """Kill a scorer, and let the nursery forget it."""
        kill_group(pid)
        with self._lock:
            if self.alive:
                self._send({"do": "reap", "pid": pid})

    def close(self) -> None:
        """End it, and all scorers."""
        self._channel.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _send(self, request: Mapping[str, object]) -> None:
        try:
            send(self._channel, pickle.dumps(request))
        except OSError as error:
            raise PluginError("the process that imports the rewards has died; start again") from error

    def _reply(self, spec: RewardSpec | None) -> Mapping[str, Any]:
        what = f"importing '{spec.target}' of rewards.{spec.name}" if spec else "starting a scorer"
        try:
            reply: Mapping[str, Any] = json.loads(receive(self._channel))
        except (BrokenWire, OSError) as error:
            how = f"took more than {_LOAD_S:g} s" if isinstance(error, TimeoutError) else "ended the process it ran in"
            raise PluginError(f"{what} {how}; try the import in a Python of its own") from error
        return reply


def scorer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a scorer inherits of the parent's environment, and one thread for every numerical library."""
    kept = {name: environment[name] for name in _KEPT if name in environment}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


_current: Nursery | None = None
_owner = 0


def shared_nursery() -> Nursery:
    """The nursery of this process; a new one if there is none, or if it has died."""
    global _current, _owner
    # A fork of this process holds the same channel and must not talk on it.
    if _current is None or _owner != os.getpid() or not _current.alive:
        _current, _owner = Nursery(), os.getpid()
        atexit.register(_current.close)
    return _current


def end_shared_nursery() -> None:
    """End the nursery of this process and give its memory back, if it has one; the next scorer starts another."""
    global _current
    if _current is not None and _owner == os.getpid():
        _current.close()
        _current = None
