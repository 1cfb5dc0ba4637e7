"""How a network comes to rest: the order of a sweep, and the solver that repeats it."""

from eqprop.settling.conjugate_gradients import (
    ConjugateGradients as ConjugateGradients,
)
from eqprop.settling.crossing import (
    crossing as crossing,
)
from eqprop.settling.solvers import (
    FixedSweeps as FixedSweeps,
)
from eqprop.settling.solvers import (
    Norm as Norm,
)
from eqprop.settling.solvers import (
    Solution as Solution,
)
from eqprop.settling.solvers import (
    Solver as Solver,
)
from eqprop.settling.solvers import (
    Status as Status,
)
from eqprop.settling.solvers import (
    UntilConverged as UntilConverged,
)
from eqprop.settling.solvers import (
    max_norm as max_norm,
)
from eqprop.settling.solvers import (
    relative_norm as relative_norm,
)
from eqprop.settling.starts import (
    FromFeedforward as FromFeedforward,
)
from eqprop.settling.starts import (
    FromState as FromState,
)
from eqprop.settling.sweeps import (
    Leaky as Leaky,
)
from eqprop.settling.sweeps import (
    Sweep as Sweep,
)
from eqprop.settling.sweeps import (
    alternating as alternating,
)
from eqprop.settling.sweeps import (
    backward_order as backward_order,
)
from eqprop.settling.sweeps import (
    forward_order as forward_order,
)
from eqprop.settling.sweeps import (
    synchronous as synchronous,
)
