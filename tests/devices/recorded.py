"""What aihwkit did: see data/README.md."""

from pathlib import Path

import numpy as np
import torch

RECORDED = np.load(Path(__file__).parents[1] / "data" / "aihwkit.npz")


def trajectory(cells, weights, n):
    """The weights of cells: at first, then after each of n pulses up and n pulses down."""
    values, found = cells.programmed(weights), [weights]
    for sign in [1.0] * n + [-1.0] * n:
        values = cells.pulsed(values, torch.full_like(weights, sign))
        found.append(cells.read(values))
    return torch.stack(found)
