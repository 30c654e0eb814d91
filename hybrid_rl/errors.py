"""The few errors a user can meet. `hybrid_rl.cli.main` is the one place that prints them.

Every message is one sentence or two: what is wrong, where, and how to mend it.
"""

from __future__ import annotations


class UserError(Exception):
    """Bad input that the user can mend: printed as one sentence, exit code 2, no traceback."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used: unknown key, wrong type, impossible value."""


class DataError(UserError, ValueError):
    """Training or evaluation data that cannot be read or used."""


class PluginError(UserError, ImportError):
    """A `module:name` or `file.py:name` that does not import or has the wrong signature."""


class RunFolderError(UserError, OSError):
    """A run folder that exists already, cannot be written, or lacks what is asked of it."""


class RewardError(UserError, RuntimeError):
    """A reward failed on a sample; the run stops rather than train on an invented score."""


class AlarmStop(UserError, RuntimeError):
    """An alarm whose action is `stop`: the run has ended with a checkpoint."""


class WorkerDied(RuntimeError):
    """The process of a worker ended by itself: printed as one sentence, exit code 1. No fault of the input."""


class BroadcastBroken(WorkerDied):
    """A worker waited in vain for another one of a broadcast; which one has died, if one has, it cannot know."""


class Interrupted(BaseException):
    """The user asked to stop (Ctrl-C or SIGTERM). Not an `Exception`, so that no handler swallows it."""


class EngineMismatch(UserError, RuntimeError):
    """Rollout engine and trainer disagree about the probability of the same token."""
