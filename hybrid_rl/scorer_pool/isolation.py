"""What cuts a scorer off: a network of its own in which there is nothing, no rights over others, and no new sockets.

Two fences, and each holds alone. Namespaces (man 7 user_namespaces, network_namespaces) need no rights of an
administrator, but many containers forbid them; a filter of system calls (man 2 seccomp) works in those too. As a script
this file tells by its exit code whether any of them works here, so it imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
import subprocess
import sys

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2

# Classic BPF: operation codes, and where the kernel puts what a filter sees (struct seccomp_data).
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_AF_UNIX = 1
_X32 = 0x40000000
"""From here on x86-64 counts the calls of its third way in once more."""

_MACHINES = {
    "x86_64": (0xC000003E, {"socket": 41, "setns": 308, "io_uring_setup": 425}),
    "aarch64": (0xC00000B7, {"socket": 198, "setns": 268, "io_uring_setup": 425}),
}
"""AUDIT_ARCH and the numbers of the calls. io_uring opens sockets without the call that opens sockets."""


def leave_network() -> bool:
    """Move this process, which must have one thread, into an empty network; whether the kernel allowed it.

    What it starts from then on is there too.
    """
    # An administrator keeps their rights for the imports, and drops them in `drop_rights`.
    if os.geteuid() == 0:
        return _unshare(_CLONE_NEWNET)
    return _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def drop_rights() -> bool:
    """Move this process, which must have one thread, into a user namespace of its own; whether the kernel allowed it.

    It keeps its user and the files of that user. It loses an administrator's rights, and the sight of the memory and
    the environment of processes outside.
    """
    return _unshare(_CLONE_NEWUSER)


def refuse_sockets() -> bool:
    """Let every further socket but local ones fail with EPERM, here and in what is started; whether it works here."""
    machine = _MACHINES.get(platform.machine())
    if machine is None or sys.byteorder != "little" or sys.maxsize < 2**32:
        return False
    program = _filter(*machine)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    return not (
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head, 0, 0)
    )


@functools.cache
def network_can_be_cut() -> bool:
    """Whether scorers have no network here. Tried in a process of its own, tens of milliseconds once."""
    return subprocess.run([sys.executable, "-I", "-S", __file__], check=False).returncode == 0


def _filter(architecture: int, calls: dict[str, int]) -> bytes:
    """The program: a list of (operation, argument, instructions to skip if so, if not)."""
    refuse, allow = (_RETURN, _REFUSE, 0, 0), (_RETURN, _ALLOW, 0, 0)
    lines = [
        (_LOAD, _AT_ARCHITECTURE, 0, 0),
        (_EQUAL, architecture, 1, 0),
        refuse,  # a call of another architecture: its numbers mean other things
        (_LOAD, _AT_NUMBER, 0, 0),
        (_AT_LEAST, _X32, 0, 1),
        refuse,
    ]
    for name in ("setns", "io_uring_setup"):
        lines += [(_EQUAL, calls[name], 0, 1), refuse]
    lines += [
        (_EQUAL, calls["socket"], 1, 0),
        allow,
        (_LOAD, _AT_FIRST_ARGUMENT, 0, 0),
        (_EQUAL, _AF_UNIX, 0, 1),
        allow,
        refuse,
    ]
    return b"".join(struct.pack("HBBI", code, yes, no, value) for code, value, yes, no in lines)


def _unshare(flags: int) -> bool:
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        return False
    if flags & _CLONE_NEWUSER:
        # Under their own numbers; without this a process is nobody to itself, which is a nuisance and no danger.
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            try:
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
            except OSError:
                break
    return True


if __name__ == "__main__":
    sys.exit(0 if leave_network() | refuse_sockets() else 1)
