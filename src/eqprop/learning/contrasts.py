"""What learning reads from a landscape: contrasts of its terms, and their drives."""

from __future__ import annotations

import torch
from torch import Tensor

from eqprop.energy.gains import Amplification
from eqprop.energy.landscape import Landscape
from eqprop.energy.losses import Loss
from eqprop.energy.nodes import State
from eqprop.energy.terms import Term


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


def drive_derivative(landscape: Landscape, state: State, displacement: State, amplification: Amplification) -> Tensor:
    """(batch,): 0, with the derivative of ``drive_dot`` by parameters."""
    masked, moved = landscape.masked(state), landscape.masked(displacement)
    parts = [
        term.drive_derivative(at(term, masked), at(term, moved), [amplification.get(n, 1.0) for n in term.nodes])
        for term in landscape.terms.values()
    ]
    return torch.stack(parts).sum(0)


def amplified(term: Term, amplification: Amplification) -> float:
    """The amplification of a term: that of the node it drives."""
    return next((amplification.get(node, 1.0) * term.gain(node) for node in reversed(term.nodes)), 1.0)


def at(term: Term | Loss, state: State) -> list[Tensor]:
    """The states of the nodes of a term or a loss."""
    return [state[node] for node in term.nodes]
