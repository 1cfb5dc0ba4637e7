"""Equilibrium Propagation in PyTorch: networks that settle, and learn from the difference between equilibria."""

from eqprop.energy.activations import (
    Activation,
    Clip,
    Linear,
    Sigmoid,
    Tanh,
    centred_hard_sigmoid,
    half_hard_sigmoid,
    half_sigmoid,
    hard_sigmoid,
    linear,
    sigmoid,
    tanh,
)
from eqprop.energy.couplings import Bias, Coupling, Field, SeparateFeedback, Synapse
from eqprop.energy.losses import CrossEntropy, Loss, ReadoutCrossEntropy, SquaredError, WeightedSum
from eqprop.energy.maps import Convolution, Dense, Map
from eqprop.energy.network import Landscape, Network
from eqprop.energy.nodes import Node, State
from eqprop.energy.pooling import AveragePool, Carried, MaxPool, Pool, SoftPool
from eqprop.errors import EqpropError, InputError, NotSettledError
from eqprop.learning.equilibrium import Equilibrium, Record
from eqprop.learning.estimators import Cost, EquilibriumPropagation, Estimator, Learnt
from eqprop.learning.forms import Form, Phases, difference, ordinary
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.learning.references import BackpropagationThroughTime, ImplicitDifferentiation
from eqprop.learning.rules import Noisy, contrastive, kolen_pollack, vector_field
from eqprop.learning.stencils import RandomSign, Stencil, five_point, one_sided, symmetric
from eqprop.models.chain import ConvLayer, DenseLayer, chain, parameter_groups
from eqprop.settling.conjugate_gradients import ConjugateGradients
from eqprop.settling.solvers import FixedPoint, Settled, Solver, UntilRest
from eqprop.settling.starts import FromFeedforward, FromState
from eqprop.settling.sweeps import Sweep, alternating, backward_order, forward_order, synchronous

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "AveragePool",
    "BackpropagationThroughTime",
    "Bias",
    "Carried",
    "Clip",
    "ConjugateGradients",
    "ConvLayer",
    "Convolution",
    "Cost",
    "Coupling",
    "CrossEntropy",
    "Dense",
    "DenseLayer",
    "EqpropError",
    "Equilibrium",
    "EquilibriumPropagation",
    "Estimator",
    "Field",
    "FixedPoint",
    "Form",
    "FromFeedforward",
    "FromState",
    "ImplicitDifferentiation",
    "InfinitesimalNudge",
    "InputError",
    "Landscape",
    "Learnt",
    "Linear",
    "Loss",
    "Map",
    "MaxPool",
    "Network",
    "Node",
    "Noisy",
    "NotSettledError",
    "Phases",
    "Pool",
    "RandomSign",
    "ReadoutCrossEntropy",
    "Record",
    "SeparateFeedback",
    "Settled",
    "Sigmoid",
    "SoftPool",
    "Solver",
    "SquaredError",
    "State",
    "Stencil",
    "Sweep",
    "Synapse",
    "Tanh",
    "UntilRest",
    "WeightedSum",
    "alternating",
    "backward_order",
    "centred_hard_sigmoid",
    "chain",
    "contrastive",
    "difference",
    "five_point",
    "forward_order",
    "half_hard_sigmoid",
    "half_sigmoid",
    "hard_sigmoid",
    "kolen_pollack",
    "linear",
    "one_sided",
    "ordinary",
    "parameter_groups",
    "sigmoid",
    "symmetric",
    "synchronous",
    "tanh",
    "vector_field",
]
