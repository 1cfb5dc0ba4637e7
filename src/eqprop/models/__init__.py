"""Ready networks, built from the core; no new concepts."""

from eqprop.models.builders import (
    ConvLayer as ConvLayer,
)
from eqprop.models.builders import (
    DenseLayer as DenseLayer,
)
from eqprop.models.builders import (
    chain as chain,
)
from eqprop.models.builders import (
    parameter_groups as parameter_groups,
)
