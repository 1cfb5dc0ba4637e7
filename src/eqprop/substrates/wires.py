"""Crossbars whose wires resist."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.checks import NonNegative
from eqprop.energy.couplings import Coupling
from eqprop.energy.substrate import Substrate
from eqprop.errors import explained
from eqprop.substrates.weights import read


@dataclass(frozen=True)
class Wires(Substrate):
    """Weights are pairs of cells in two crossbars, one of them at 0, whose wires resist; see ``crossbar``.

    Rows are inputs, columns outputs (channels of a kernel). Driven from the columns, a crossbar multiplies by the exact
    transpose, so the network keeps its energy. Learning sees the voltages at the ends of the wires, not at the cell.

    Effect: on an n x n crossbar the farthest cells lose about resistance * n (n + 1) / 2 per wire; none on learning in
        situ but a positive factor for each weight, to first order.
    Remedy: learn in situ; smaller crossbars.
    Source: 0.35 ohm a segment at 5 microsiemens in the presets of aihwkit 1.2.0, a resistance of 1.75e-6.

    Args:
        resistance: of the wire from one cell to the next, times the largest conductance of the parameter.
    """

    resistance: NonNegative = 0.0

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        if not self.resistance:
            return coupling

        def change(key: str, w: Tensor) -> Tensor:
            if w.ndim < 2 or not bool(w.abs().max() > 0):
                return w
            cells = w.double().reshape(len(w), -1).T
            scale = cells.abs().max()
            with explained(f"{self}: the wires let nothing through ({{}}): take less.", torch.linalg.LinAlgError):  # type: ignore[attr-defined]
                seen = [crossbar((side * cells / scale).clamp(0), self.resistance) for side in (1, -1)]
            return ((seen[0] - seen[1]) * scale).T.reshape(w.shape).to(w)

        return read(coupling, change)


def crossbar(cells: Tensor, resistance: float) -> Tensor:
    """The matrix by which a crossbar multiplies: the current out of column j is the sum over i of it[i, j] v_i.

    Rows are driven at their first cell, columns are held at 0 and read at their last. The nodes are solved exactly, row
    by row of the crossbar (block elimination of Kirchhoff's equations).

    Args:
        cells: (rows, columns), conductances >= 0.
        resistance: of each wire's segment, > 0; also from a driver to the first cell, and from the last to the reader.
    """
    rows, columns = cells.shape
    if rows < columns:  # by reciprocity; the corner of the two terminals stays where it is
        return crossbar(cells.T.flip(0, 1), resistance).flip(0, 1).T
    wire = 1 / resistance
    line = torch.full((columns,), 2 * wire, dtype=cells.dtype, device=cells.device)
    line[-1] = wire  # its far end is open
    next_to = torch.full((columns - 1,), -wire, dtype=cells.dtype, device=cells.device)
    along = torch.diag(line) + torch.diag(next_to, 1) + torch.diag(next_to, -1)
    inverse = torch.linalg.inv(along + torch.diag_embed(cells))  # (rows, columns, columns): of each row's wire
    down = torch.full((rows,), 2 * wire, dtype=cells.dtype, device=cells.device)
    down[0] = wire
    own = torch.diag_embed(cells + down[:, None]) - cells[:, :, None] * inverse * cells[:, None, :]
    into = wire * cells * inverse[:, :, 0]  # of a unit drive, into the columns
    eliminated, above = [], torch.zeros_like(along)
    for block in own:
        above = torch.linalg.inv(block - wire**2 * above)
        eliminated.append(above)
    found, below = [], torch.eye(columns, dtype=cells.dtype, device=cells.device)
    for i in reversed(range(rows)):  # below: the reader's current by what enters the columns at row i
        below = below @ (wire * eliminated[i])
        found.append(below @ into[i])
    return torch.stack(found[::-1])
