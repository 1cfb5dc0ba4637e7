"""How the C library treats memory that tensors have freed."""

from __future__ import annotations

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""


def keep_freed_memory() -> None:
    """Makes glibc keep the memory that tensors free; has no effect with other C libraries.

    By default glibc returns large blocks to the system and requests new ones, page by page, many times in each step.
    With this the process keeps its peak memory until it ends.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(MMAP_THRESHOLD, 32 * 2**20)  # the largest value that it accepts
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
