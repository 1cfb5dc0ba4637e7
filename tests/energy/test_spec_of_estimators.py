"""An estimator written down as JSON and built anew is the same estimator; a name leads to the mathematics alone."""

import copy
import json
import random
import sys
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import eqprop as ep
from eqprop.energy import spec as specs
from eqprop.learning import forms

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from estimators import CASES, FREE, NUDGED, SETTINGS, gradients, named

L, S = ep.learning, ep.settling
MORE = [
    ep.FromFeedforward(ep.UntilConverged(1e-3, 20, norm=S.relative_norm, over_relaxation=1.5)),
    S.Leaky(0.5, S.Leaky(0.25, S.forward_order, 0.1, 3)),
    S.Averaged(10, S.Leaky(0.5), last=4),
    L.Noisy(L.Noisy(L.kolen_pollack, 0.1), 0.5, 3),
    L.DeltaRule(0.3),
    L.teachers.Force(exact=False),
    L.FreeStateBaseline(),
    L.JacobianPenalty(ep.InfinitesimalNudge(FREE), L.jacobian_norm, 0.1),
    L.RayleighPenalty(ep.InfinitesimalNudge(FREE), 0.1),
]


def read(value, allow=()):
    return specs.from_spec(json.loads(json.dumps(specs.to_spec(value, "it"), allow_nan=False)), allow)


def check_same(value, twin):
    """The same class and the same arguments, of the same kinds."""
    assert type(twin) is type(value)
    if callable(value) and not is_dataclass(value):
        assert twin is value
    elif isinstance(value, tuple | list):
        assert len(twin) == len(value)
        for one, other in zip(value, twin, strict=True):
            check_same(one, other)
    elif is_dataclass(value):
        for each in (each for each in fields(value) if each.init):
            check_same(getattr(value, each.name), getattr(twin, each.name))
    else:
        assert twin == value


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_estimator_comes_back(case):
    estimator = case.make()
    check_same(estimator, read(estimator))


@pytest.mark.parametrize("value", MORE, ids=lambda value: type(value).__name__)
def test_every_part_of_an_estimator_comes_back(value):
    check_same(value, read(value))


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_it_predicts_and_learns_the_same_bits(setting):
    def results(estimator):
        model = setting.model()
        model.estimator = estimator
        torch.manual_seed(3)
        x, y = setting.data()
        loss = model.loss(x, y)
        return loss.detach(), gradients(loss, model), model(x).detach()

    estimator = setting.model().estimator
    for one, other in zip(results(estimator), results(read(setting.model().estimator)), strict=True):
        assert torch.equal(one, other)


def test_what_exists_once_is_that_object():
    """Estimators ask whether a form or a sweep is a certain one."""
    for one in (forms.states, forms.displacements, S.alternating, S.max_norm, L.clamp, ep.tanh, ep.vector_field):
        assert read(one) is one


def test_plain_values_come_back():
    for value in (
        (1, 2.5),
        [1, [2], (3,)],
        {"a": (None, True), "b": [-0.0]},
        (float("inf"), -float("inf")),
        1 + 2j,
        "é\ud800",
    ):
        assert repr(read(value)) == repr(value)
    assert type(read(torch.Size([2, 3]))) is tuple


def test_every_part_of_the_package_has_its_place():
    """A new public class is a part of models, or is listed here as none."""
    others = {
        *("Equilibrium", "Record", "Cost", "GradientEstimate", "Phases", "Landscape", "Term", "Field", "Nudge"),
        *("Linearization", "Solution", "Status", "Target"),
    }
    for space in (ep.energy, S, L):
        for name, kind in vars(space).items():
            if isinstance(kind, type):
                assert issubclass(kind, specs.parts()) is not (name in others), name


class Mine(S.Solver):
    pass


def my_sweep(landscape, state):
    return S.synchronous(landscape, state)


@dataclass(frozen=True)
class MyEstimator(L.Estimator):
    free: ep.Solver
    numbers: list[float] = field(default_factory=list)

    def __call__(self, landscape):
        raise NotImplementedError


def test_a_users_own_need_permission():
    for value, mine in (
        (ep.FixedSweeps(3, my_sweep), my_sweep),
        (MyEstimator(FREE, [0.5]), MyEstimator),
    ):
        with pytest.raises(ep.InputError, match=rf"{mine.__name__}.*allow"):
            read(value)
        check_same(value, read(value, [mine]))
    spec = specs.to_spec(MyEstimator(FREE), "it") | {"class": "__main__:MyEstimator"}  # written by a script
    check_same(MyEstimator(FREE), specs.from_spec(spec, [MyEstimator]))


def test_what_does_not_write_itself_down_is_named():
    lost = ep.EquilibriumPropagation(ep.symmetric(0.3), FREE, NUDGED)
    for value, told in (
        (
            replace(lost, rule=lambda phases, parameters: ()),
            r"'rule' of eqprop.learning:EquilibriumPropagation.*lambda",
        ),
        (replace(lost, free=S.FromState({"a": torch.zeros(1)}, FREE)), r"'state' of .*FromState\['a'\].*Tensor"),
        (ep.FixedSweeps, "ABCMeta, which no spec holds"),
        (torch.Generator(), "Generator, which no spec holds"),
        (Path("a"), "Path, which no spec holds"),
        ({1: 2}, "dict, which no spec holds"),
        ({3}, "set, which no spec holds"),
        (float("nan"), "float, which no spec holds"),
        (nn.Linear(2, 2), "Parameter"),
    ):
        with pytest.raises(ep.InputError, match=told):
            specs.to_spec(value, "it")


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "eqprop.cli:main",
        "eqprop.files:make_folder",
        "eqprop.tasks:load_images",
        "eqprop.tasks.sources:load_images",
        "eqprop.learning:one_sided",
        "eqprop.learning.stencils:check_beta",
        "eqprop.settling:crossing",
        "eqprop.energy:read_weights",
        "eqprop.models:chain",
        "eqprop.settling:UntilConverged",
        "eqprop.settling:alternating.__call__",
        "eqprop.settling.sweeps:in_turn",
        "eqprop.settling:max_norm",
        "eqprop.learning:contrastive",
        None,
        {},
    ],
    ids=str,
)
def test_a_name_leads_to_functions_that_fit_alone(name):
    """The last two real ones are functions of the package, but none is a sweep."""
    spec = specs.to_spec(ep.FixedSweeps(3), "it")
    spec["arguments"]["sweep"] = {"name": name}
    with pytest.raises(ep.InputError, match="The spec"):
        specs.from_spec(spec, ())


@pytest.mark.parametrize(
    "name",
    ["eqprop.tasks:Task", "eqprop.tasks:Images", "eqprop.energy:Landscape", "eqprop.learning:Record", "eqprop:Network"],
)
def test_a_class_is_a_part_of_a_model(name):
    import eqprop.tasks  # noqa: F401

    with pytest.raises(ep.InputError, match="no part of a model"):
        specs.from_spec({"class": name, "arguments": {}}, ())


def test_arguments_are_held_to_their_annotations():
    import eqprop.tasks  # noqa: F401

    for arguments in ({"names": "abc"}, {"names": [1, 2]}, {"names": None}, {}, {"names": ["a"], "more": 1}):
        with pytest.raises(ep.InputError, match=r"eqprop.tasks:Classes"):
            specs.from_spec({"class": "eqprop.tasks:Classes", "arguments": arguments}, ())


def places(spec, at=()):
    """The path of every value in a JSON."""
    yield at
    for key in spec if isinstance(spec, dict) else range(len(spec)) if isinstance(spec, list) else ():
        yield from places(spec[key], (*at, key))


def nested(levels):
    found = []
    for _ in range(levels):
        found = [found]
    return found


WRONG = [
    None, True, -1, 0, 10**12, 10**30, -(10**18), 1.5, float("nan"), float("inf"), "", "x" * 10**5, [], {}, [[]],
    {"class": "os:system", "arguments": {}}, {"name": "eqprop.cli:main"}, {"float": "nan"}, {"complex": [1, "2"]},
    {"mapping": {}}, {"list": 3}, {"name": 3}, {"class": [], "arguments": {}},
    {"class": "eqprop.energy:Node", "arguments": {"shape": [2**60]}}, nested(300),
]  # fmt: skip


def mutated(spec, seed):
    """One place changed, removed, renamed or doubled."""
    draw = random.Random(seed)
    spec = copy.deepcopy(spec)
    *path, last = draw.choice([each for each in places(spec) if each])
    holder = spec
    for key in path:
        holder = holder[key]
    match draw.randrange(4):
        case 0 if isinstance(holder, dict):
            holder[draw.choice(["", "more", "class", "name"])] = holder.pop(last)
        case 1:
            del holder[last]
        case _:
            holder[last] = draw.choice(WRONG)
    return spec


def whole():
    network = ep.chain((2, 8, 8), [ep.ConvLayer(3, pool=ep.MaxPool(2)), ep.DenseLayer(4, ep.sigmoid)], ep.SquaredError)
    return network.spec()


def told(reader, spec):
    """What is wrong with it; nothing if it is read."""
    try:
        reader(spec)
    except ep.InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", range(200))
def test_a_mutated_spec_is_refused_in_one_line_or_read(seed):
    estimator = specs.to_spec(CASES[seed % len(CASES)].make(), "it")
    with torch.device("meta"):
        texts = [
            told(ep.Network.from_spec, mutated(whole(), seed)),
            told(lambda spec: specs.from_spec(spec, ()), mutated(estimator, seed)),
        ]
    assert all("\n" not in text and len(text) < 1000 for text in texts)
