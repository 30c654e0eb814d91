"""Freed memory stays with the process.

glibc gives large blocks back to the system at once, so every step of a training loop has its activations mapped and
zeroed anew; on two CPU cores that costs a quarter of a small model's step.
"""

from __future__ import annotations

import ctypes
import sys

# From malloc.h; the thresholds in bytes are the largest that glibc takes.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_PAD = 64 * 2**20


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed; other C libraries are left alone."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        mallopt(_M_TOP_PAD, _PAD)
