"""One example of every fault, and the ideal one of its class."""

import math

from eqprop import substrates as s
from eqprop.devices import DAY, PhaseChange
from eqprop.substrates import TwoCircuits

FAULTS = {
    "WeightSpread": s.WeightSpread(0.1),
    "WeightNoise": s.WeightNoise(0.01),
    "WriteNoise": s.WriteNoise(0.01),
    "WeightRange": s.WeightRange(0.3, 64),
    "StuckWeights": s.StuckWeights(0.2),
    "Aged": s.Aged(PhaseChange(), DAY, compensate=True),
    "FeedbackSpread": s.FeedbackSpread(0.1),
    "MessageGains": s.MessageGains(0.1, 0.1),
    "Wires": s.Wires(1e-3),
    "UnitSpread": s.UnitSpread(0.1, 0.1),
    "UnitNoise": s.UnitNoise(1e-3),
    "LoopConverter": s.LoopConverter(0.01, 0.01),
    "ReadNoise": s.ReadNoise(1e-3),
    "ReadConverter": s.ReadConverter(0.01, -0.9, 0.9),
    "ReadConverter at random": s.ReadConverter(0.01, random=True),
    "ReadSpread": s.ReadSpread(0.1, 0.1),
    "Droop": s.Droop(0.01),
    "NudgeGain": s.NudgeGain(0.1),
    "NudgeOffset": s.NudgeOffset(0.1),
    "NudgeLevels": s.NudgeLevels(0.01),
    "UnequalNudges": s.UnequalNudges(0.1),
    "TwoCircuits": TwoCircuits(s.ReadSpread(0.1), s.ReadSpread(0.1, seed=1)),
}
IDEAL = {name: type(each)() for name, each in FAULTS.items() if name != "TwoCircuits"}
IDEAL["TwoCircuits"] = TwoCircuits(s.ReadSpread(), s.ReadSpread())
IDEAL["StuckWeights"] = s.StuckWeights(0.0, 1.0)
IDEAL["WeightRange"] = s.WeightRange(math.inf)
IDEAL["Together"] = s.Together(*IDEAL.values())

ALL_OF_THEM = s.Together(*FAULTS.values())
