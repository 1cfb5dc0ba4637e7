"""Equilibrium Propagation in PyTorch: networks that settle, and learn from the difference between equilibria."""

import typing as _typing

from eqprop import _start

if _start.is_command():
    _start.begin()

from eqprop import (
    devices as devices,
    energy as energy,
    learning as learning,
    models as models,
    physics as physics,
    settling as settling,
    substrates as substrates,
)
from eqprop._version import __version__ as __version__
from eqprop.checks import check_classes as _check_classes
from eqprop.energy import (
    AveragePool,
    Bias,
    BinaryCrossEntropy,
    Convolution,
    Coupling,
    CrossEntropy,
    Dense,
    Loss,
    MaxPool,
    Network,
    Node,
    ReadoutCrossEntropy,
    SquaredError,
    Synapse,
    Unit,
    hard_sigmoid,
    identity,
    sigmoid,
    tanh,
)
from eqprop.errors import InputError, NotSettledError
from eqprop.learning import (
    Backpropagation,
    BackpropagationThroughTime,
    Equilibrium,
    EquilibriumPropagation,
    Estimator,
    ImplicitDifferentiation,
    InfinitesimalNudge,
    Record,
    contrastive,
    one_sided,
    symmetric,
    vector_field,
)
from eqprop.models import ConvLayer, DenseLayer, chain, graph
from eqprop.settling import FixedSweeps, FromFeedforward, Solution, Solver, UntilConverged, alternating, synchronous

if _typing.TYPE_CHECKING:
    from eqprop.pretrained import Pretrained, load

_made_here = (energy.Landscape, learning.Phases)  # no user makes them
_check_classes(energy, settling, learning, devices, substrates, models, physics, but=_made_here)

__all__ = [
    "AveragePool",
    "Backpropagation",
    "BackpropagationThroughTime",
    "Bias",
    "BinaryCrossEntropy",
    "ConvLayer",
    "Convolution",
    "Coupling",
    "CrossEntropy",
    "Dense",
    "DenseLayer",
    "Equilibrium",
    "EquilibriumPropagation",
    "Estimator",
    "FixedSweeps",
    "FromFeedforward",
    "ImplicitDifferentiation",
    "InfinitesimalNudge",
    "InputError",
    "Loss",
    "MaxPool",
    "Network",
    "Node",
    "NotSettledError",
    "Pretrained",
    "ReadoutCrossEntropy",
    "Record",
    "Solution",
    "Solver",
    "SquaredError",
    "Synapse",
    "Unit",
    "UntilConverged",
    "alternating",
    "chain",
    "contrastive",
    "graph",
    "hard_sigmoid",
    "identity",
    "load",
    "one_sided",
    "sigmoid",
    "symmetric",
    "synchronous",
    "tanh",
    "vector_field",
]


def __getattr__(name: str) -> _typing.Any:
    """What needs the hub's library, when it is used."""
    if name == "Pretrained":
        from eqprop.pretrained import Pretrained

        return Pretrained
    if name == "load":
        from eqprop.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
