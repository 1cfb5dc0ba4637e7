"""The parts of a network: nodes, units, couplings, maps, losses; and its energy. It needs torch only, metrics aside."""

from eqprop.energy.couplings import (
    Bias as Bias,
    Coupling as Coupling,
    SeparateFeedback as SeparateFeedback,
    Synapse as Synapse,
)
from eqprop.energy.landscape import Landscape as Landscape
from eqprop.energy.losses import (
    BinaryCrossEntropy as BinaryCrossEntropy,
    CrossEntropy as CrossEntropy,
    Loss as Loss,
    Nudge as Nudge,
    ReadoutCrossEntropy as ReadoutCrossEntropy,
    SquaredError as SquaredError,
    Target as Target,
    WeightedSum as WeightedSum,
)
from eqprop.energy.maps import (
    Activated as Activated,
    Convolution as Convolution,
    Dense as Dense,
    Map as Map,
    ModuleMap as ModuleMap,
    Skip as Skip,
)
from eqprop.energy.network import Network as Network
from eqprop.energy.nodes import Node as Node, State as State
from eqprop.energy.pooling import (
    AveragePool as AveragePool,
    Linearization as Linearization,
    MaxPool as MaxPool,
    Pool as Pool,
    SoftPool as SoftPool,
)
from eqprop.energy.prediction import Prediction as Prediction
from eqprop.energy.shapes import (
    example_dims as example_dims,
    expand_like as expand_like,
    sum_per_example as sum_per_example,
)
from eqprop.energy.substrate import Substrate as Substrate, read_weights as read_weights
from eqprop.energy.terms import Field as Field, Term as Term
from eqprop.energy.units import (
    Clip as Clip,
    Identity as Identity,
    Sigmoid as Sigmoid,
    SmoothClip as SmoothClip,
    Tanh as Tanh,
    Unit as Unit,
    Wire as Wire,
    centred_hard_sigmoid as centred_hard_sigmoid,
    half_hard_sigmoid as half_hard_sigmoid,
    half_sigmoid as half_sigmoid,
    hard_sigmoid as hard_sigmoid,
    identity as identity,
    relu as relu,
    sigmoid as sigmoid,
    smooth_clip as smooth_clip,
    tanh as tanh,
)
