"""Equilibrium Propagation in PyTorch: networks that settle, and learn from the difference between equilibria."""

from eqprop.energy.activations import (
    Activation,
    Clip,
    Linear,
    Sigmoid,
    SmoothClip,
    Tanh,
    centred_hard_sigmoid,
    half_hard_sigmoid,
    half_sigmoid,
    hard_sigmoid,
    linear,
    sigmoid,
    smooth_clip,
    tanh,
)
from eqprop.energy.couplings import Bias, Coupling, Field, SeparateFeedback, Synapse
from eqprop.energy.losses import BinaryCrossEntropy, CrossEntropy, Loss, ReadoutCrossEntropy, SquaredError, WeightedSum
from eqprop.energy.maps import Convolution, Dense, Map
from eqprop.energy.network import Landscape, Network
from eqprop.energy.nodes import Node, State
from eqprop.energy.pooling import AveragePool, Carried, MaxPool, Pool, SoftPool
from eqprop.errors import EqpropError, InputError, NotSettledError
from eqprop.learning.agnostic import AgnosticEP
from eqprop.learning.continual import ContinualEP
from eqprop.learning.dual import DualPropagation
from eqprop.learning.equilibrium import Equilibrium, Record
from eqprop.learning.estimators import Cost, EquilibriumPropagation, Estimator, Learnt
from eqprop.learning.forms import Form, Phases, difference, ordinary
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.learning.penalties import JacobianPenalty, SlownessPenalty, asymmetry, slowness, steepness
from eqprop.learning.predictive import LeastSquares, PredictiveLearning, Predictor, TrueFree
from eqprop.learning.references import Backpropagation, BackpropagationThroughTime, ImplicitDifferentiation
from eqprop.learning.rules import (
    DeltaRule,
    Noisy,
    clamped_presynaptic,
    contrastive,
    generalised_recirculation,
    kolen_pollack,
    mean_presynaptic,
    vector_field,
)
from eqprop.learning.stencils import (
    RandomSign,
    Stencil,
    centred,
    five_point,
    holomorphic,
    negative,
    one_sided,
    optimistic,
    pessimistic,
    positive,
    symmetric,
)
from eqprop.learning.teachers import Teacher, clamp, force, soft_clamp
from eqprop.learning.turning import TurningNudge
from eqprop.models.chain import ConvLayer, DenseLayer, chain, parameter_groups
from eqprop.settling.conjugate_gradients import ConjugateGradients
from eqprop.settling.solvers import FixedPoint, Measure, Settled, Solver, UntilRest, largest_change, relative_change
from eqprop.settling.starts import FromFeedforward, FromState
from eqprop.settling.sweeps import Leaky, Sweep, alternating, backward_order, forward_order, synchronous

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "AgnosticEP",
    "AveragePool",
    "Backpropagation",
    "BackpropagationThroughTime",
    "Bias",
    "BinaryCrossEntropy",
    "Carried",
    "Clip",
    "ConjugateGradients",
    "ContinualEP",
    "ConvLayer",
    "Convolution",
    "Cost",
    "Coupling",
    "CrossEntropy",
    "DeltaRule",
    "Dense",
    "DenseLayer",
    "DualPropagation",
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
    "JacobianPenalty",
    "Landscape",
    "Leaky",
    "Learnt",
    "LeastSquares",
    "Linear",
    "Loss",
    "Map",
    "MaxPool",
    "Measure",
    "Network",
    "Node",
    "Noisy",
    "NotSettledError",
    "Phases",
    "Pool",
    "PredictiveLearning",
    "Predictor",
    "RandomSign",
    "ReadoutCrossEntropy",
    "Record",
    "SeparateFeedback",
    "Settled",
    "Sigmoid",
    "SlownessPenalty",
    "SmoothClip",
    "SoftPool",
    "Solver",
    "SquaredError",
    "State",
    "Stencil",
    "Sweep",
    "Synapse",
    "Tanh",
    "Teacher",
    "TrueFree",
    "TurningNudge",
    "UntilRest",
    "WeightedSum",
    "alternating",
    "asymmetry",
    "backward_order",
    "centred",
    "centred_hard_sigmoid",
    "chain",
    "clamp",
    "clamped_presynaptic",
    "contrastive",
    "difference",
    "five_point",
    "force",
    "forward_order",
    "generalised_recirculation",
    "half_hard_sigmoid",
    "half_sigmoid",
    "hard_sigmoid",
    "holomorphic",
    "kolen_pollack",
    "largest_change",
    "linear",
    "mean_presynaptic",
    "negative",
    "one_sided",
    "optimistic",
    "ordinary",
    "parameter_groups",
    "pessimistic",
    "positive",
    "relative_change",
    "sigmoid",
    "slowness",
    "smooth_clip",
    "soft_clamp",
    "steepness",
    "symmetric",
    "synchronous",
    "tanh",
    "vector_field",
]
