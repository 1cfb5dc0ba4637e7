"""Predictive coding in error coordinates: prediction errors move, and states follow them through the whole network.

A state h_k = f_k(h_(k-1)) + e_k is at rest where each error e_k is the force of all terms but its own prediction: of
the next errors, through the transposed derivatives, and of the nudge. A sweep of states passes a force on by one node a
colour; here one pass takes it through all nodes (arXiv 2505.20137, there without equilibrium propagation).
"""

from __future__ import annotations

from torch import Tensor

from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State
from eqprop.energy.prediction import GivenPrediction, PlacedPrediction, Predicted
from eqprop.energy.units import Wire
from eqprop.errors import InputError

FREE = Wire()


def error_pass(landscape: Landscape, state: State) -> State:
    """The next state: errors pass from the output to the input, then states from the input to the output.

    Each error is the force, at ``state``, of the nudge and of the errors after it; then each node of ``landscape``
    moves to its prediction plus its error. It is a step of gradient descent, of length 1, on the energy as a function
    of all errors; under a squared error, to the minimum over the output. At rest the state is stationary: no descent is
    demanded, and the energy may have risen. From the free state and with a small nudge, one pass is a backpropagation
    and a forward pass that adds what it brought. Without a nudge it is the feedforward pass.

    Raises:
        InputError: a node is not held by exactly one ``Prediction``, from a node before it, or has another unit than
            ``Wire()``; or the solver asks for over-relaxation.
    """
    own, rest = predictions(landscape)
    if not isinstance(landscape.rate, float) or landscape.rate != 1:
        raise InputError("error_pass has no over-relaxation: leave it out.")
    errors: State = {}
    for node in reversed(list(landscape.nodes)):
        parts = [
            own[after].pulled(state[node], error)  # type: ignore[attr-defined]
            for after, error in errors.items()
            if own[after].nodes[0] == node
        ]
        stiffness = None
        if any(node in term.nodes for term in rest.terms.values()):
            parts.append(rest.drive(state, node))
            stiffness = landscape.stiffness(state, node) if rest.stiffness(state, node) is not None else None
        if not parts:
            continue
        errors[node] = sum(parts[1:], parts[0])
        if stiffness is not None:  # of the other terms' parabola, together with the prediction's, to the minimum
            error = state[node] - predicted(own[node], state)
            errors[node] = (errors[node] + (stiffness - 1) * error) / stiffness
    moved: State = {}
    for node in landscape.nodes:
        at = predicted(own[node], moved)
        moved[node] = (at + errors[node] if node in errors else at).to(state[node].dtype)
    return moved


def has_errors(landscape: Landscape) -> bool:
    """Whether a prediction holds each node, so that ``error_pass`` applies."""
    try:
        predictions(landscape)
    except InputError:
        return False
    return True


def predictions(landscape: Landscape) -> tuple[dict[str, Predicted], Landscape]:
    """Node -> the prediction that holds it; and the landscape of all other terms.

    Raises:
        InputError: see ``error_pass``.
    """
    own: dict[str, Predicted] = {}
    others, order = dict(landscape.terms), list(landscape.nodes)
    for name, term in landscape.terms.items():
        if isinstance(term, PlacedPrediction | GivenPrediction):
            node = term.nodes[-1]
            if node in own:
                raise InputError(f"Two predictions hold node {node!r}: let one module read both nodes before it.")
            if any(order.index(pre) >= order.index(node) for pre in term.nodes[:-1]):
                raise InputError(f"{node!r} is predicted by a node after it: name nodes in order of a forward pass.")
            own[node] = term
            del others[name]
    for node in order:
        if node not in own or landscape.unit(node) != FREE:
            raise InputError(
                f"Error coordinates are for nodes of Wire() that a Prediction holds, unlike {node!r}: use alternating "
                "sweeps of states."
            )
    return own, landscape.only(others)


def predicted(term: Predicted, state: State) -> Tensor:
    """What the term predicts at ``state``."""
    return term.predicted(*(state[node] for node in term.nodes[:-1]))
