"""What the C library does with memory that tensors no longer use."""

from __future__ import annotations

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""


def keep_freed_memory() -> None:
    """Tells glibc to keep what tensors free for the next ones; elsewhere nothing happens.

    By itself it hands large blocks back to the system and takes new ones, page by page, many times in each step.
    The process keeps its peak memory until it ends.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(MMAP_THRESHOLD, 32 * 2**20)  # the most that it takes
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
