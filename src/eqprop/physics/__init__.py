"""Physical networks, which settle by themselves and learn by local rules: circuits, oscillators, spins."""

from eqprop.physics.cost import (
    CostTable as CostTable,
    Counter as Counter,
    ModelledCost as ModelledCost,
    Tally as Tally,
    cost_report as cost_report,
    modelled_cost as modelled_cost,
    tally_of_step as tally_of_step,
)
from eqprop.physics.diodes import (
    DiodeLayer as DiodeLayer,
    IdealDiodes as IdealDiodes,
    JunctionDiodes as JunctionDiodes,
)
from eqprop.physics.drn import deep_resistive_network as deep_resistive_network
from eqprop.physics.netlist import netlist as netlist, ngspice as ngspice, read_voltages as read_voltages
from eqprop.physics.oscillators import (
    LateralPhaseCoupling as LateralPhaseCoupling,
    Phase as Phase,
    PhaseCoupling as PhaseCoupling,
    PhaseError as PhaseError,
    PhaseField as PhaseField,
    PhaseInput as PhaseInput,
    SecondHarmonic as SecondHarmonic,
    collinear as collinear,
    oscillator_network as oscillator_network,
)
from eqprop.physics.resistors import Leak as Leak, Resistors as Resistors, keep_passive as keep_passive
from eqprop.physics.spikes import (
    Events as Events,
    RandomSpikes as RandomSpikes,
    RegularSpikes as RegularSpikes,
    SpikeCounts as SpikeCounts,
    event_rule as event_rule,
)
from eqprop.physics.spins import (
    Annealed as Annealed,
    CovarianceEP as CovarianceEP,
    Enumerated as Enumerated,
    Gibbs as Gibbs,
    ReverseAnnealed as ReverseAnnealed,
    Sample as Sample,
    SampledEstimator as SampledEstimator,
    Sampler as Sampler,
    Spin as Spin,
    SpinError as SpinError,
    ThermalEP as ThermalEP,
    ising_network as ising_network,
    moved as moved,
)
