"""The shipped conformance suite over everything it applies to, and the suite itself against a wrong plug-in."""

import pytest
import torch
from terms import ACTIVATIONS, WITHOUT_POTENTIAL, Inhibition, ThreeBody
from torch import nn

import eqprop as ep
from eqprop import testing
from eqprop.energy.couplings import Clamped, Field
from eqprop.energy.losses import LinearForce, Nudge
from eqprop.energy.maps import ModuleMap

CONVOLUTIONS = [
    {"kernel": 1},
    {"kernel": 3, "padding": 1},
    {"kernel": 5, "padding": 2, "stride": 2},
    {"kernel": (3, 2), "padding": (1, 0), "stride": (2, 3)},
    {"kernel": 3, "dilation": 2, "padding": 1},
    {"kernel": 3, "groups": 2},
    {"kernel": 3, "padding": 1, "pool": ep.MaxPool(2)},
    {"kernel": 3, "padding": 1, "pool": ep.MaxPool(3, 2)},
    {"kernel": 3, "padding": 1, "pool": ep.MaxPool(2, 3)},
    {"kernel": 3, "padding": 1, "pool": ep.AveragePool(2)},
    {"kernel": 2, "stride": 2, "pool": ep.AveragePool(3, 1)},
    {"kernel": 3, "padding": 1, "pool": ep.energy.SoftPool(2)},
    {"kernel": 2, "groups": 4, "pool": ep.energy.SoftPool(3)},
]


@pytest.mark.parametrize("activation", [*ACTIVATIONS, *WITHOUT_POTENTIAL], ids=str)
def test_units(activation):
    testing.check_unit(activation)


@pytest.mark.parametrize("size", [(4, 7, 7), (4, 8, 9)])
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_convolutions(options, size):
    testing.check_map(ep.Convolution(size, 8, **options))


def test_other_maps():
    testing.check_map(ep.Dense((3, 2, 2), (5,)))
    testing.check_map(ep.Dense((4,), (2, 3)))
    testing.check_map(ep.energy.Skip((3, 2, 2)))
    testing.check_map(ModuleMap(nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2)), (2, 8, 8)))


IMAGE, UNITS = (2, 6, 6), (5,)
POOLED = {"kernel": 3, "padding": 1, "pool": ep.MaxPool(2)}


def couplings():
    torch.manual_seed(0)  # else one run in some hundreds has a pooling window so near a tie that a small move turns it
    yield ep.Synapse("a", "b", ep.Dense(IMAGE, UNITS)), {"a": IMAGE, "b": UNITS}
    yield ep.Synapse("a", "b", ep.Dense(IMAGE, UNITS), feedback_gain=0.3), {"a": IMAGE, "b": UNITS}
    yield ep.Synapse("a", "b", ep.Convolution(IMAGE, 3, **POOLED)), {"a": IMAGE, "b": (3, 3, 3)}
    yield ep.Synapse("a", "b", ep.Convolution(IMAGE, 3, **POOLED), feedback_gain=0.3), {"a": IMAGE, "b": (3, 3, 3)}
    yield ep.Synapse("a", "b", ep.Convolution(IMAGE, 3, pool=ep.energy.SoftPool(2))), {"a": IMAGE, "b": (3, 2, 2)}
    yield ep.Synapse("a", "b", ep.energy.Skip(IMAGE), 0.3), {"a": IMAGE, "b": IMAGE}
    module = nn.Sequential(nn.Flatten(), nn.Linear(72, 5))
    yield ep.Synapse("a", "b", module), {"a": IMAGE, "b": UNITS}
    for pool in (ep.MaxPool(2), ep.AveragePool(2), ep.energy.SoftPool(2)):
        up, down = (ep.Convolution(IMAGE, 3, **POOLED | {"pool": pool}) for _ in range(2))
        yield ep.energy.SeparateFeedback("a", "b", up, down), {"a": IMAGE, "b": (3, 3, 3)}
    yield (
        ep.energy.SeparateFeedback("a", "b", *(ep.Dense(IMAGE, UNITS) for _ in range(2)), 0.3),
        {"a": IMAGE, "b": UNITS},
    )
    yield ep.Bias("a", IMAGE, 9), {"a": IMAGE}
    yield ep.Bias("a", UNITS), {"a": UNITS}
    yield Field("a", torch.randn(3, *UNITS, dtype=torch.float64)), {"a": UNITS}
    yield Inhibition(), {"a": UNITS}
    yield ThreeBody(), {"a": UNITS, "b": UNITS, "c": UNITS}
    yield Clamped(ThreeBody(), {"b": torch.randn(3, *UNITS, dtype=torch.float64)}), {"a": UNITS, "c": UNITS}
    scale = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    yield Nudge(ep.SquaredError("a", UNITS), torch.tensor([0, 4, 2]), scale), {"a": UNITS}


CASES = list(couplings())


@pytest.mark.parametrize(
    ("coupling", "shapes"), CASES, ids=[type(c).__name__ + str(i) for i, (c, _) in enumerate(CASES)]
)
def test_couplings(coupling, shapes):
    nodes = {name: ep.Node(shape, ep.tanh) for name, shape in shapes.items()}
    if isinstance(coupling, ep.Coupling):
        coupling.bind(nodes)
    if isinstance(coupling, Field | Clamped | Nudge):  # these belong to one batch: its size is theirs
        for node in coupling.nodes:
            states = [torch.randn(3, *shapes[n], dtype=torch.float64) for n in coupling.nodes]
            testing.close(coupling.drive(node, *states), ep.Coupling.drive(coupling, node, *states), str(coupling))
    else:
        testing.check_coupling(coupling, shapes)


LABELS = torch.tensor([0, 4, 2])


@pytest.mark.parametrize(
    ("loss", "target", "shapes"),
    [
        (ep.SquaredError("a", UNITS), LABELS, {"a": UNITS}),
        (ep.SquaredError("a", UNITS), torch.randn(3, 5, dtype=torch.float64), {"a": UNITS}),
        (ep.CrossEntropy("a", UNITS), LABELS, {"a": UNITS}),
        (ep.CrossEntropy("a", UNITS, 0.2), LABELS, {"a": UNITS}),
        (ep.ReadoutCrossEntropy("a", IMAGE, 6), LABELS, {"a": IMAGE}),
        (ep.ReadoutCrossEntropy("a", IMAGE, 6, 0.2), LABELS, {"a": IMAGE}),
        (LinearForce("a"), torch.randn(3, 5, dtype=torch.float64), {"a": UNITS}),
        (
            ep.energy.WeightedSum(
                [ep.SquaredError("a", UNITS), ep.CrossEntropy("b", UNITS), ep.CrossEntropy("a", UNITS)], [1, 2, -1]
            ),
            LABELS,
            {"a": UNITS, "b": UNITS},
        ),
    ],
    ids=str,
)
def test_losses(loss, target, shapes):
    testing.check_loss(loss, target, shapes)


@pytest.mark.parametrize("target", [LABELS, torch.rand(3, 5, dtype=torch.float64)], ids=["labels", "values"])
def test_the_loss_of_units_in_the_unit_interval(target):
    testing.check_loss(ep.BinaryCrossEntropy("a", UNITS), target, {"a": UNITS}, within=(0.0, 1.0))


def test_the_suite_notices_a_wrong_plug_in():
    class Backwards(Inhibition):
        def drive(self, node, *states):
            return -super().drive(node, *states)

    with pytest.raises(AssertionError, match="drive and -grad"):
        testing.check_coupling(Backwards(), {"a": UNITS})

    class Crooked(ep.Dense):
        def transpose(self, pre, post):
            return 2 * super().transpose(pre, post)

    with pytest.raises(AssertionError, match=r"pull|transpose"):
        testing.check_map(Crooked((3,), (4,)))

    class Bent(ep.Unit):
        def response(self, drive):
            return drive

        def potential(self, state):
            return state.square()

    with pytest.raises(AssertionError, match="not the minimum"):
        testing.check_unit(Bent())
