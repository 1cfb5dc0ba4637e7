"""Random draws that depend on a key alone: the same on every device, after a resume, and in any order."""

from __future__ import annotations

import hashlib

import torch


def generator_for(*key: str | int) -> torch.Generator:
    """A generator on the CPU for any device, so that all devices get the same draws; ``key``: what it depends on."""
    return torch.Generator().manual_seed(seed_of(*key) - 2**63)


def seed_of(*key: str | int) -> int:
    """A number from 0 to 2**64 - 1 for this key."""
    digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True) + 2**63


class Generator(torch.Generator):
    """The own generator of an estimator or a substrate; a copy draws the same numbers from then on, independently."""

    def __deepcopy__(self, memo: dict[int, object]) -> Generator:
        twin = type(self)()
        twin.set_state(self.get_state())
        return twin
