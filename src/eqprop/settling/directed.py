"""Sweeps in one direction, from zero, for networks with weak feedback and for their response."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.settling.crossing import groups
from eqprop.settling.solvers import FixedSweeps, Solution, Solver, UntilConverged
from eqprop.settling.starts import directed_pass
from eqprop.settling.sweeps import OneWay, backward_order, forward_order


@dataclass(frozen=True)
class Directed(Solver):
    """Sweeps in one direction from zero, the first without the terms of nodes that are still zero.

    In ``forward_order`` the first sweep is the feedforward pass, which costs half a sweep. In ``backward_order``, for
    the response to a nudge of the output, it is one pass of feedback: half a sweep too. Where feedback is weak, few
    sweeps are enough, and a signal against their direction counts as weak: an example can be settled after two sweeps
    (``UntilConverged``, which measures the contraction), with fewer than ``crossing`` says. The results are those of
    the same ``solver`` from zero if couplings are bilinear.

    Attributes:
        solver: ``FixedSweeps`` or ``UntilConverged``, in ``forward_order`` or ``backward_order``.

    Raises:
        InputError: the solver's sweeps have another order.
    """

    solver: FixedSweeps | UntilConverged

    def __post_init__(self) -> None:
        if self.solver.sweep not in (forward_order, backward_order):
            raise InputError(f"{self.solver}: directed sweeps are in forward_order or in backward_order.")

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        """The solution; ``start`` must be zero."""
        nodes = [node for (node,) in groups(landscape, self.solver.sweep)]
        counting = itertools.count()

        def sweep(landscape: Landscape, state: State) -> State:
            if next(counting):
                return self.solver.sweep(landscape, state)
            return directed_pass(landscape, state, nodes)

        return replace(self.solver, sweep=OneWay(sweep))(landscape, start)
