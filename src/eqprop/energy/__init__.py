"""What is settled: nodes, couplings, losses, and the network they make. Imports torch alone."""

from eqprop.energy.couplings import (
    Bias as Bias,
)
from eqprop.energy.couplings import (
    Coupling as Coupling,
)
from eqprop.energy.couplings import (
    Field as Field,
)
from eqprop.energy.couplings import (
    SeparateFeedback as SeparateFeedback,
)
from eqprop.energy.couplings import (
    Synapse as Synapse,
)
from eqprop.energy.losses import (
    BinaryCrossEntropy as BinaryCrossEntropy,
)
from eqprop.energy.losses import (
    CrossEntropy as CrossEntropy,
)
from eqprop.energy.losses import (
    Loss as Loss,
)
from eqprop.energy.losses import (
    Nudge as Nudge,
)
from eqprop.energy.losses import (
    ReadoutCrossEntropy as ReadoutCrossEntropy,
)
from eqprop.energy.losses import (
    SquaredError as SquaredError,
)
from eqprop.energy.losses import (
    Target as Target,
)
from eqprop.energy.losses import (
    WeightedSum as WeightedSum,
)
from eqprop.energy.maps import (
    Convolution as Convolution,
)
from eqprop.energy.maps import (
    Dense as Dense,
)
from eqprop.energy.maps import (
    Map as Map,
)
from eqprop.energy.maps import (
    ModuleMap as ModuleMap,
)
from eqprop.energy.maps import (
    example_dims as example_dims,
)
from eqprop.energy.maps import (
    expand_like as expand_like,
)
from eqprop.energy.maps import (
    sum_per_example as sum_per_example,
)
from eqprop.energy.network import (
    Landscape as Landscape,
)
from eqprop.energy.network import (
    Network as Network,
)
from eqprop.energy.nodes import (
    Node as Node,
)
from eqprop.energy.nodes import (
    State as State,
)
from eqprop.energy.pooling import (
    AveragePool as AveragePool,
)
from eqprop.energy.pooling import (
    Linearization as Linearization,
)
from eqprop.energy.pooling import (
    MaxPool as MaxPool,
)
from eqprop.energy.pooling import (
    Pool as Pool,
)
from eqprop.energy.pooling import (
    SoftPool as SoftPool,
)
from eqprop.energy.units import (
    Clip as Clip,
)
from eqprop.energy.units import (
    Identity as Identity,
)
from eqprop.energy.units import (
    Sigmoid as Sigmoid,
)
from eqprop.energy.units import (
    SmoothClip as SmoothClip,
)
from eqprop.energy.units import (
    Tanh as Tanh,
)
from eqprop.energy.units import (
    Unit as Unit,
)
from eqprop.energy.units import (
    centred_hard_sigmoid as centred_hard_sigmoid,
)
from eqprop.energy.units import (
    half_hard_sigmoid as half_hard_sigmoid,
)
from eqprop.energy.units import (
    half_sigmoid as half_sigmoid,
)
from eqprop.energy.units import (
    hard_sigmoid as hard_sigmoid,
)
from eqprop.energy.units import (
    identity as identity,
)
from eqprop.energy.units import (
    sigmoid as sigmoid,
)
from eqprop.energy.units import (
    smooth_clip as smooth_clip,
)
from eqprop.energy.units import (
    tanh as tanh,
)
