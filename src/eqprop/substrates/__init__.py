"""Substrates with the faults of real machines, each with its law: how much it changes what is learnt.

Each class has one fault; ``Together`` has several. At strength 0, the default, a class is the ideal substrate to the
bit. Faults that are fixed when a machine is made depend on the seed and the names of the coupling, its parameter or the
node alone. Those that are drawn anew come from a generator of the substrate, which a checkpoint keeps. The laws are
those of a network at rest, for small faults: the part of the error of the gradient that the fault adds, relative to the
gradient, in terms of its size and of beta. Biases are digital: faults of weights leave them out.
"""

from eqprop.substrates.named import SUBSTRATES as SUBSTRATES, find_substrate as find_substrate
from eqprop.substrates.nudging import (
    NudgeGain as NudgeGain,
    NudgeLevels as NudgeLevels,
    NudgeOffset as NudgeOffset,
    UnequalNudges as UnequalNudges,
)
from eqprop.substrates.reading import (
    Droop as Droop,
    ReadConverter as ReadConverter,
    ReadNoise as ReadNoise,
    ReadSpread as ReadSpread,
)
from eqprop.substrates.together import (
    Fault as Fault,
    Together as Together,
    TwoCircuits as TwoCircuits,
    redrawn as redrawn,
)
from eqprop.substrates.units import LoopConverter as LoopConverter, UnitNoise as UnitNoise, UnitSpread as UnitSpread
from eqprop.substrates.weights import (
    Aged as Aged,
    FeedbackSpread as FeedbackSpread,
    MessageGains as MessageGains,
    StuckWeights as StuckWeights,
    WeightNoise as WeightNoise,
    WeightRange as WeightRange,
    WeightSpread as WeightSpread,
    WriteNoise as WriteNoise,
    age_weights as age_weights,
    at_age as at_age,
)
from eqprop.substrates.wires import Wires as Wires, crossbar as crossbar
