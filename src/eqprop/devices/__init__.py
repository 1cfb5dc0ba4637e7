"""Devices that hold weights, optimisers that write them by pulses, analogue products, and memory that ages."""

from eqprop.devices.ageing import (
    DAY as DAY,
    HOUR as HOUR,
    YEAR as YEAR,
    Ageing as Ageing,
    Filamentary as Filamentary,
    PhaseChange as PhaseChange,
    compensated as compensated,
)
from eqprop.devices.cells import Cells as Cells, Device as Device, DeviceCells as DeviceCells
from eqprop.devices.named import (
    CAPACITOR as CAPACITOR,
    DEVICES as DEVICES,
    ECRAM as ECRAM,
    ECRAM_OXIDE as ECRAM_OXIDE,
    GOKMEN_VLASOV as GOKMEN_VLASOV,
    IDEALISED as IDEALISED,
    PCM as PCM,
    RERAM_ARRAY_HFO2 as RERAM_ARRAY_HFO2,
    RERAM_ARRAY_OM as RERAM_ARRAY_OM,
    RERAM_ES as RERAM_ES,
    RERAM_SB as RERAM_SB,
    find_device as find_device,
)
from eqprop.devices.pairs import Pair as Pair, PairCells as PairCells
from eqprop.devices.products import (
    Converters as Converters,
    analogue_product as analogue_product,
    coincidences as coincidences,
)
from eqprop.devices.pulses import (
    Affine as Affine,
    Constant as Constant,
    Exponential as Exponential,
    Linear as Linear,
    Power as Power,
    SoftBounds as SoftBounds,
    Table as Table,
)
from eqprop.devices.writing import (
    AGAD as AGAD,
    METHODS as METHODS,
    BinaryFlip as BinaryFlip,
    ChoppedTransfer as ChoppedTransfer,
    MixedPrecision as MixedPrecision,
    Pulses as Pulses,
    SignOnly as SignOnly,
    TikiTaka as TikiTaka,
    Writing as Writing,
    pull as pull,
    resting_weights as resting_weights,
)
