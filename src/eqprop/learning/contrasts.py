"""What learning reads from a landscape: contrasts of its terms, their drives, amplification by feedback gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from eqprop.energy.landscape import Landscape
from eqprop.energy.losses import Loss
from eqprop.energy.nodes import State
from eqprop.energy.terms import Term
from eqprop.errors import InputError

Amplification = Mapping[str, float]
"""Node -> the factor that cancels the feedback gains between it and the teacher; 1 for nodes that are left out."""


def contrast(landscape: Landscape, state: State, amplification: Amplification) -> Tensor:
    """(batch,): what a contrastive rule compares between phases: the sum of the terms' contrasts.

    Each term is multiplied by the amplification of the node that it drives.
    """
    masked = landscape.masked(state)
    parts = [amplified(t, amplification) * t.contrast(*at(t, masked)) for t in landscape.terms.values()]
    return torch.stack(parts).sum(0)


def contrast_difference(
    landscape: Landscape, state: State, displacement: State, amplification: Amplification
) -> Tensor:
    """(batch,): contrast(state + displacement) - contrast(state); without cancellation for bilinear terms."""
    masked, moved = landscape.masked(state), landscape.masked(displacement)
    parts = [
        amplified(t, amplification) * t.contrast_difference(at(t, masked), at(t, moved))
        for t in landscape.terms.values()
    ]
    return torch.stack(parts).sum(0)


def drive_dot(landscape: Landscape, state: State, displacement: State, amplification: Amplification) -> Tensor:
    """(batch,): <drive at ``state``, ``displacement``>, over all nodes, each amplified."""
    masked, moved = landscape.masked(state), landscape.masked(displacement)
    moved |= {node: by * moved[node] for node, by in amplification.items() if by != 1}
    return torch.stack([t.drive_dot(at(t, masked), at(t, moved)) for t in landscape.terms.values()]).sum(0)


def amplification_from(landscape: Landscape, taught: Sequence[str]) -> dict[str, float]:
    """Node -> 1 / (product of the feedback gains on the path from the ``taught`` nodes to it); 1 without gains.

    A network with feedback gains is at rest at the stationary points of the energy sum_n a_n G(s_n) + sum over
    couplings of a E, where a_n is the amplification of node n, and a that of the node which a coupling drives. So a
    rule that multiplies each coupling by a does equilibrium propagation on that energy. The amplification is the
    gamma^(k - L) of contrastive Hebbian learning (Xie & Seung 2003, doi 10.1162/089976603762552988), for any graph.

    Raises:
        InputError: two paths to a node have different gains, so that there is no such energy; or a gain is 0.
    """
    found, queue = dict.fromkeys(taught, 1.0), list(taught)
    while queue:
        node = queue.pop()
        for name, term in landscape.terms.items():
            for other in term.nodes if node in term.nodes else ():
                if not term.gain(node) * term.gain(other):
                    raise InputError(
                        f"The coupling {name!r} has feedback gain 0, so no error signal reaches the nodes below it: "
                        "give it a small gain, or train by Backpropagation."
                    )
                way = found[node] * term.gain(node) / term.gain(other)
                if other not in found:
                    found[other] = way
                    queue.append(other)
                elif not math.isclose(found[other], way, rel_tol=1e-9):
                    raise InputError(
                        f"The feedback gains on two ways from {' and '.join(taught)} to {other!r} multiply to "
                        f"{1 / found[other]:g} and {1 / way:g}: the network then has no energy whose contrast is a "
                        "gradient. Choose gains with the same product on every way."
                    )
    return dict.fromkeys(landscape.nodes, 1.0) | found


def amplified(term: Term, amplification: Amplification) -> float:
    """The amplification of a term: that of the node it drives."""
    return next((amplification.get(node, 1.0) * term.gain(node) for node in reversed(term.nodes)), 1.0)


def at(term: Term | Loss, state: State) -> list[Tensor]:
    """The states of the nodes of a term or a loss."""
    return [state[node] for node in term.nodes]
