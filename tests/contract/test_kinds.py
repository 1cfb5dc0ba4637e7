"""Every argument of the wrong kind is refused where it is given, in one line that names it."""

import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pytest
import torch
from torch import nn

import eqprop as ep
from eqprop import checks

NAMESPACES = (ep, ep.energy, ep.settling, ep.learning, ep.models)
MADE_HERE = (ep.energy.Landscape, ep.learning.Phases)
"""Values that the library makes many of in a step, and no user makes: not checked."""


def constructors():
    """name -> every public class that states its own parameters or inherits them."""
    found = {name: each for space in NAMESPACES for name, each in vars(space).items() if isinstance(each, type)}
    for name, kind in sorted(found.items()):
        init = inspect.getattr_static(kind, "__init__")
        stated = init not in (object.__init__, nn.Module.__init__) and not inspect.isabstract(kind)
        if stated and kind not in MADE_HERE and not issubclass(kind, tuple | int | Exception):
            yield name, kind


BUILDERS = [
    *(ep.chain, ep.graph, ep.models.parameter_groups),
    *(ep.one_sided, ep.symmetric, ep.learning.five_point, ep.learning.holomorphic, ep.learning.negative),
    *(ep.learning.positive, ep.learning.centred, ep.learning.optimistic, ep.learning.pessimistic, ep.Network.from_spec),
]
PUBLIC = [*constructors(), *((each.__name__, each) for each in BUILDERS)]
ANY = {("Nudge", "target")}
"""Parameters that may be anything: targets."""


def hints(target):
    return typing.get_type_hints(
        inspect.unwrap(target.__init__ if isinstance(target, type) else target), include_extras=True
    )


PARAMETERS = [
    (target, parameter)
    for name, target in PUBLIC
    for parameter in inspect.signature(target).parameters
    if (name, parameter) not in ANY
]


def test_the_walk_meets_what_there_is():
    names = [name for name, _ in PUBLIC]
    assert len(names) > 50
    for each in (
        "Clip",
        "MaxPool",
        "Node",
        "Network",
        "Synapse",
        "SquaredError",
        "EquilibriumPropagation",
        "Equilibrium",
    ):
        assert each in names
    assert len(PARAMETERS) > 150


@pytest.mark.parametrize(
    ("target", "parameter"), PARAMETERS, ids=[f"{target.__name__}-{parameter}" for target, parameter in PARAMETERS]
)
def test_an_object_is_refused_as_any_argument(target, parameter):
    """Alone, before anything is missed: so also by a constructor that would fail otherwise."""
    with pytest.raises(ep.InputError, match=rf"\b{parameter} must be ") as caught:
        target(**{parameter: object()})
    assert "\n" not in str(caught.value)
    assert "object" in str(caught.value)


NUMBERS = [
    (t, p)
    for t, p in PARAMETERS
    if hints(t).get(p) in (float, int, checks.Count, checks.Natural, checks.NonNegative, checks.Positive)
]


@pytest.mark.parametrize(("target", "parameter"), NUMBERS, ids=[f"{t.__name__}-{p}" for t, p in NUMBERS])
@pytest.mark.parametrize("value", [True, math.nan, math.inf, "1", None, 1j, torch.tensor(1.0)], ids=str)
def test_what_is_no_number_is_refused_as_one(target, parameter, value):
    with pytest.raises(ep.InputError, match=rf"\b{parameter} must be "):
        target(**{parameter: value})


class Plain:
    pass


SWEEPS = ep.FixedSweeps(3)
NODES = {"x": ep.Node((4,)), "y": ep.Node((3,), ep.tanh)}


def estimator(*args, **options):
    return lambda: ep.EquilibriumPropagation(*args, **options)


def chain(*args):
    return lambda: ep.chain((4,), *args)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (chain([nn.Linear(4, 3)]), r"layers.*Layer.*Linear"),
        (chain([ep.DenseLayer(3)], nn.CrossEntropyLoss()), "CrossEntropyLoss.*Loss"),
        (chain([ep.DenseLayer(3)], "mse"), "loss.*'mse'"),
        (chain(ep.DenseLayer(3)), "layers"),
        (chain([*[ep.DenseLayer(3)] * 30, 5]), r"layers.*\[5\]"),
        (lambda: ep.chain(4, [ep.DenseLayer(3)]), "in_shape"),
        (lambda: ep.chain([4], [ep.DenseLayer(3)]), r"in_shape.*tuple.*\[4\] \(list\)"),
        (partial(ep.DenseLayer, 64, torch.relu), "activation.*Unit"),
        (partial(ep.DenseLayer, 64, "relu"), "activation.*'relu'"),
        (partial(ep.DenseLayer, 64, ep.energy.Tanh), "activation"),
        (partial(ep.DenseLayer, "64"), r"DenseLayer: units must be int >= 1, not '64' \(str\)"),
        (partial(ep.DenseLayer, 0), r"DenseLayer: units must be int >= 1, not 0 \(int\)"),
        (partial(ep.DenseLayer, -3), "units.*-3"),
        (partial(ep.ConvLayer, 4, pool=nn.AvgPool2d(2)), "pool.*AvgPool2d"),
        (partial(ep.ConvLayer, 4, kernel="3"), "kernel.*'3'"),
        (partial(ep.ConvLayer, 4, kernel=(3, 3, 3)), "kernel"),
        (partial(ep.ConvLayer, 0), "channels.*0"),
        (partial(ep.ConvLayer, 4, stride=0), r"stride must be .*int >= 1, .*, not 0 \(int\)"),
        (partial(ep.ConvLayer, 4, kernel=(3, 0)), "kernel"),
        (partial(ep.ConvLayer, 4, padding=-1), "padding"),
        (partial(ep.ConvLayer, 4, groups=0), "groups"),
        (partial(ep.MaxPool, 0), "size"),
        (partial(ep.energy.SoftPool, 2, 0), "stride"),
        (partial(ep.energy.SoftPool, 3, 2), "windows that touch"),
        (partial(ep.settling.ConjugateGradients, 0), "iterations"),
        (partial(ep.settling.ConjugateGradients, 5, -1e-3), r"tolerance must be finite float >= 0, not -0.001"),
        (partial(ep.InfinitesimalNudge, SWEEPS, damping=-5), "damping"),
        (estimator("symmetric", SWEEPS, SWEEPS), "nudging.*'symmetric'"),
        (estimator(ep.symmetric, SWEEPS, SWEEPS), "nudging"),
        (estimator(ep.symmetric(0.5), free=20, nudged=SWEEPS), "free.*20"),
        (estimator(ep.symmetric(0.5), SWEEPS, ep.FixedSweeps), "nudged"),
        (estimator(ep.symmetric(0.5), SWEEPS, SWEEPS, rule="vector_field"), "rule"),
        (estimator(ep.symmetric(0.5), SWEEPS, SWEEPS, teacher=ep.learning.teachers.Force), "teacher"),
        (partial(ep.Node, "x"), "shape"),
        (partial(ep.Node, (3.5,)), "shape"),
        (partial(ep.Node, (3,), torch.tanh), "unit"),
        (lambda: ep.Network({"x": 3}, []), "nodes.*3"),
        (lambda: ep.Network({3: ep.Node((3,))}, []), "nodes.*3"),
        (lambda: ep.Network(NODES, [nn.Linear(2, 2)]), "couplings.*Linear"),
        (lambda: ep.Network(NODES, {"a": nn.Linear(2, 2)}), "couplings.*Linear"),
        (lambda: ep.Network(NODES, iter([nn.Linear(2, 2)])), "Linear"),
        (lambda: ep.Network(NODES, couplings=iter([nn.Linear(2, 2)])), "Linear"),
        (lambda: ep.Network(NODES, [], clamped="x"), "clamped.*'x'"),
        (lambda: ep.Network(NODES, [], substrate=ep.energy.Substrate), "substrate"),
        (lambda: ep.chain((4,), [ep.DenseLayer(3)]).on("chip"), "substrate.*'chip'"),
        (lambda: ep.Synapse("x", "y", 3), "map.*3"),
        (lambda: ep.Synapse("x", "y", nn.Linear), "map"),
        (lambda: ep.Synapse("x", "y", nn.Linear(2, 2), feedback_gain=math.nan), "feedback_gain.*nan"),
        (partial(ep.UntilConverged, "a", 3), "tolerance.*'a'"),
        (partial(ep.FixedSweeps, 3.5), "n must be int >= 1, not 3.5"),
        (partial(ep.FixedSweeps, 3, sweep=4), "sweep.*4"),
        (partial(ep.FixedSweeps, True), "n must be"),
        (partial(ep.learning.Stencil, ("a",), (1,)), "betas.*'a'"),
        (partial(ep.symmetric, "0.5"), "beta.*'0.5'"),
        (partial(ep.symmetric, math.nan), "beta.*nan"),
        (partial(ep.learning.negative, "1"), "beta.*'1'"),
        (partial(ep.learning.RandomSign, 0.1, seed=0.5), "seed.*0.5"),
        (partial(ep.FromFeedforward, 3), "solver.*3"),
        (partial(ep.settling.FromState, {"x": 3}, SWEEPS), "state.*3"),
        (partial(ep.settling.Leaky, 0.5, "alternating"), "sweep"),
        (partial(ep.settling.Leaky, 1.5), r"Leaky: rate must be finite float > 0, <= 1, not 1.5 \(float\)"),
        (partial(ep.learning.OscillatingNudge, 0.1, 2, SWEEPS, SWEEPS), "points must be int >= 3, not 2"),
        (partial(ep.learning.LeastSquares, (1, "2")), "samples.*'2'"),
        (partial(ep.energy.WeightedSum, [nn.MSELoss()]), "losses.*MSELoss"),
        (partial(ep.Equilibrium, nn.Linear(2, 2), ep.ImplicitDifferentiation(SWEEPS)), "network"),
        (lambda: ep.Equilibrium(chain([ep.DenseLayer(2)])(), SWEEPS), "estimator"),
        (lambda: ep.Equilibrium(chain([ep.DenseLayer(2)])(), ep.Backpropagation(), "never"), "on_unsettled.*'raise'"),
        (lambda: ep.models.parameter_groups(chain([ep.DenseLayer(2)])(), ["0.1"]), "rates.*'0.1'"),
        (lambda: ep.Network.from_spec([]), "spec"),
    ],
)  # fmt: skip
def test_the_wrong_kind_is_refused_where_it_is_given(make, says):
    with pytest.raises(ep.InputError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_what_is_right_passes():
    import numpy as np

    assert ep.energy.Clip(np.float32(0.5), -math.inf, np.int64(1)).slope == 0.5
    assert ep.energy.Wire().high == math.inf
    assert ep.symmetric(1).betas == (1, -1)
    assert ep.learning.holomorphic(0.3, 4).is_complex
    assert ep.ConvLayer(4, kernel=(3, 2)).kernel == (3, 2)
    assert ep.chain(torch.rand(2, 4).shape[1:], (ep.DenseLayer(2),)).output == "layer1"


FITS = {
    int: [3],
    float: [3, 0.5],
    checks.Bound: [3, 0.5, math.inf, -math.inf],
    complex: [3, 0.5, 1j],
    bool: [True],
    int | None: [3, None],
    typing.Literal["a", "b"]: ["a", "b"],
    tuple[int, ...]: [(), (1,), (1, 2, 3)],
    tuple[int, int]: [(1, 2)],
    Sequence[int]: [[], [1], (1, 2)],
    Mapping[str, int]: [{}, {"a": 1}],
    Callable[[int], int]: [len, int, Plain],
    type: [int, Plain],
    Plain: [Plain()],
}
FITS_NOT = {
    int: [3.0, True, "3", None, 1j],
    float: [True, math.nan, math.inf, "3", 1j],
    checks.Bound: [math.nan, "3", None, True],
    complex: [complex(0, math.nan), complex(math.inf, 0), True, "1"],
    bool: [1, None],
    int | None: [0.5, True],
    typing.Literal["a", "b"]: ["c", None],
    tuple[int, ...]: [[1], (1, "a"), 3],
    tuple[int, int]: [(1,), (1, 2, 3), [1, 2], (1, "a")],
    Sequence[int]: ["ab", [1, "a"], 3, {1: 2}],
    Sequence[str]: ["ab", ["a", 1]],
    Mapping[str, int]: [{"a": "b"}, {1: 1}, [("a", 1)]],
    Callable[[int], int]: [3, "len"],
    type: [3, Plain()],
    Plain: [Plain, 3],
}


@pytest.mark.parametrize("expected", [True, False])
def test_how_annotations_are_read(expected):
    for kind, values in (FITS if expected else FITS_NOT).items():
        for value in values:
            assert checks.test_of(kind)(value) is expected, (value, kind)


def test_a_check_costs_little():
    """A solver is made anew in each step: less than 20 microseconds more than without."""
    from timeit import repeat

    bare = inspect.unwrap(ep.FixedSweeps.__init__)
    solver = object.__new__(ep.FixedSweeps)
    args = (solver, 3, ep.alternating, ep.settling.max_norm, 1e-2)
    cost = min(repeat(lambda: ep.FixedSweeps.__init__(*args), number=1000, repeat=5))
    assert (cost - min(repeat(lambda: bare(*args), number=1000, repeat=5))) / 1000 < 20e-6


def test_signatures_are_kept():
    assert list(inspect.signature(ep.FixedSweeps).parameters) == ["n", "sweep", "norm", "tolerance"]
    assert next(iter(inspect.signature(ep.chain).parameters)) == "in_shape"
