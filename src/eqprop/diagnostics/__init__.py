"""Comparisons of estimators with the exact gradient, tensor by tensor.

>>> from eqprop import diagnostics
>>> print(diagnostics.compare(network, x, y, {"mine": my_estimator}).worst())
"""

from eqprop.diagnostics.bias import BiasCurve, Suggestion, bias_curve, suggest_beta
from eqprop.diagnostics.comparison import Comparison, Row, Settling, compare
from eqprop.diagnostics.equilibria import Equilibria, equilibria
from eqprop.diagnostics.layers import LayerSize, layer_sizes
from eqprop.diagnostics.machine import Added, MachineErrors, machine_errors
from eqprop.diagnostics.references import FiniteDifferences, Reference, exact_gradients, implicit
from eqprop.diagnostics.smoothing import smooth
from eqprop.diagnostics.stability import Stability, stability
from eqprop.diagnostics.through_time import ThroughTime, through_time

__all__ = [
    "Added",
    "BiasCurve",
    "Comparison",
    "Equilibria",
    "FiniteDifferences",
    "LayerSize",
    "MachineErrors",
    "Reference",
    "Row",
    "Settling",
    "Stability",
    "Suggestion",
    "ThroughTime",
    "bias_curve",
    "compare",
    "equilibria",
    "exact_gradients",
    "implicit",
    "layer_sizes",
    "machine_errors",
    "smooth",
    "stability",
    "suggest_beta",
    "through_time",
]
