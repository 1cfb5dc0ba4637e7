"""Feedback gains: the energy of a network whose feedback is weaker than its feedforward drives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eqprop.energy.landscape import Landscape
from eqprop.errors import InputError

Amplification = Mapping[str, float]
"""Node -> the factor that cancels the feedback gains between it and the teacher; 1 for nodes that are left out."""


def amplification_from(landscape: Landscape, taught: Sequence[str]) -> dict[str, float]:
    """Node -> 1 / (product of the feedback gains on the path from the ``taught`` nodes to it); 1 without gains.

    A network with feedback gains is at rest at the stationary points of the energy sum_n a_n G(s_n) + sum over
    couplings of a E, where a_n is the amplification of node n, and a that of the node which a coupling drives. So a
    rule that multiplies each coupling by a does equilibrium propagation on that energy. The amplification is the
    gamma^(k - L) of contrastive Hebbian learning (Xie & Seung 2003, doi 10.1162/089976603762552988), for any graph.

    Raises:
        InputError: two paths to a node have different gains, so that there is no such energy; or a gain is 0.
    """
    return dict.fromkeys(landscape.nodes, 1.0) | _reached(landscape, taught)


def self_adjoint_weights(landscape: Landscape, first: Sequence[str]) -> dict[str, float]:
    """Node -> its weight a_n in the inner product sum_n a_n <x_n, y_n> in which the derivative of the drives is
    symmetric: the amplification from one node of each connected part.

    Args:
        landscape: every term must be ``reciprocal``.
        first: nodes of weight 1, unless they are connected with one before.

    Raises:
        InputError: as ``amplification_from``; or a weight is negative, so that there is no such inner product.
    """
    found: dict[str, float] = {}
    for node in (*first, *landscape.nodes):
        if node not in found:
            found |= _reached(landscape, [node])
    if negative := [node for node, weight in found.items() if weight < 0]:
        raise InputError(
            f"Feedback to {negative[0]!r} has a negative gain, so the network has no energy with a minimum, and "
            "conjugate gradients do not apply: use FixedSweeps or UntilConverged for the response."
        )
    return found


def _reached(landscape: Landscape, taught: Sequence[str]) -> dict[str, float]:
    """The amplification of all nodes that are connected with the ``taught`` ones."""
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
    return found
