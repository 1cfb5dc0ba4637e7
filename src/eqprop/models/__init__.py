"""Ready networks, built from nodes, synapses and biases."""

from eqprop.models.builders import (
    ConvLayer as ConvLayer,
    DenseLayer as DenseLayer,
    chain as chain,
    graph as graph,
    parameter_groups as parameter_groups,
)
from eqprop.models.initial import scale_weights as scale_weights
from eqprop.models.standardisation import (
    ScaledStandardisation as ScaledStandardisation,
    standardise_weights as standardise_weights,
)
