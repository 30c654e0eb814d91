"""Scorers that misbehave, by the text they are given."""

from __future__ import annotations

import os
import socket
import time


def unruly(text: str) -> float | None:
    """Does what the text says, else scores its length."""
    if text == "hang":
        return float(9**9**9 > 0)  # one long C call: no signal handler of Python's runs before its end
    if text == "nap":
        time.sleep(0.6)
    if text == "sleep":
        time.sleep(600)
    if text == "eat":
        return float(len(bytearray(64 << 30)))
    if text == "die":
        os._exit(3)
    if text == "exit":
        raise SystemExit(0)
    if text == "raise":
        raise KeyError("grader")
    if text == "nan":
        return float("nan")
    if text == "abstain":
        return None
    if text == "whoami":
        return float(os.getpid())
    return float(len(text))


def lies(text: str) -> float:
    """Writes to every socket it can find, as code that had taken over the process would."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, text.encode("latin-1"))
        except OSError:
            continue
    return 0.0


def secrets(text: str) -> float:
    """How many variables of the environment hold the text."""
    return float(sum(text in value for value in os.environ.values()))


def phone_home(text: str) -> float:
    """Opens a connection to HOST PORT and sends a line, as a reward that leaks would."""
    host, port = text.split()
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        connection.sendall(b"secret\n")
    return 1.0


def spies(text: str) -> float:
    """How often NAME stands in the environment of process PID, given as `PID NAME`."""
    pid, name = text.split()
    with open(f"/proc/{pid}/environ") as file:
        return float(file.read().count(name))


def at_most_one(answer: str) -> float | None:
    """The answer is the score, or a word for `unruly`."""
    return unruly(answer) if answer.isalpha() else float(answer)


def share_of_gold(text: str, gold: str, ids: tuple[int, ...]) -> float:
    """Share of the response's characters that are the reference's; needs the ids to be there."""
    return sum(character == gold for character in text) / max(1, len(ids))
