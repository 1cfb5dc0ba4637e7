"""How a network settles: the order of a sweep, and the solver that repeats it."""

from eqprop.settling.conjugate_gradients import ConjugateGradients as ConjugateGradients
from eqprop.settling.crossing import crossing as crossing
from eqprop.settling.directed import Directed as Directed
from eqprop.settling.error_coordinates import error_pass as error_pass
from eqprop.settling.solvers import (
    Averaged as Averaged,
    FixedSweeps as FixedSweeps,
    Norm as Norm,
    Solution as Solution,
    Solver as Solver,
    Status as Status,
    UntilConverged as UntilConverged,
    max_norm as max_norm,
    relative_norm as relative_norm,
)
from eqprop.settling.starts import (
    ForwardPass as ForwardPass,
    FromFeedforward as FromFeedforward,
    FromState as FromState,
)
from eqprop.settling.sweeps import (
    Leaky as Leaky,
    Sweep as Sweep,
    alternating as alternating,
    backward_order as backward_order,
    forward_order as forward_order,
    synchronous as synchronous,
)
