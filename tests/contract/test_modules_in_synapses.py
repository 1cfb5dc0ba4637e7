"""Modules that are not linear, maps and units that are not what they say: right gradients, or refused when built."""

import pytest
import torch
from estimators import equilibrium, learnt, relative
from torch import nn

import eqprop as ep

SETTLE = ep.FixedSweeps(60)
UNITS = 5


class Centred(nn.Module):
    """Mixes examples: each is seen from the batch's mean."""

    def forward(self, x):
        return x - x.mean(0)


class Noise(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(UNITS, UNITS), nn.Softplus())

    def forward(self, x):
        return 0.4 * x + self.inner(x)


def network(module, inner=True):
    """input - a - b - c, the module carrying from ``a`` to ``b``, or from the input to ``a``."""
    torch.manual_seed(0)
    nodes = {"input": ep.Node((UNITS,)), **{name: ep.Node((UNITS,), ep.tanh) for name in "abc"}}
    maps = {"ia": nn.Linear(UNITS, UNITS), "ab": ep.Dense((UNITS,), (UNITS,)), "bc": ep.Dense((UNITS,), (UNITS,))}
    maps["ab" if inner else "ia"] = module
    couplings = {
        "ia": ep.Synapse("input", "a", maps["ia"]),
        "ab": ep.Synapse("a", "b", maps["ab"]),
        "bc": ep.Synapse("b", "c", maps["bc"]),
        "bias": ep.Bias("c", (UNITS,)),
    }
    built = ep.Network(nodes, couplings, ep.SquaredError("c", (UNITS,)))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(0.5)
    return built


def smooth(*modules):
    torch.manual_seed(0)
    return nn.Sequential(*modules)


NONLINEAR = {
    "tanh": lambda: smooth(nn.Linear(UNITS, UNITS), nn.Tanh()),
    "softplus": lambda: smooth(nn.Linear(UNITS, UNITS), nn.Softplus()),
    "two layers": lambda: smooth(nn.Linear(UNITS, 7), nn.SiLU(), nn.Linear(7, UNITS)),
    "layer norm": lambda: smooth(nn.Linear(UNITS, UNITS), nn.LayerNorm(UNITS, eps=1.0)),
    "residual": Residual,
    "linear": lambda: nn.Linear(UNITS, UNITS),
}
ESTIMATORS = {
    "ep": (lambda: ep.EquilibriumPropagation(ep.symmetric(1e-3), SETTLE, SETTLE), 1e-4),
    "ep-states": (
        lambda: ep.EquilibriumPropagation(ep.symmetric(1e-3), SETTLE, SETTLE, form=ep.learning.forms.states),
        1e-4,
    ),
    "ep-vector-field": (lambda: ep.EquilibriumPropagation(ep.symmetric(1e-3), SETTLE, SETTLE, ep.vector_field), 1e-4),
    "ep-in-turn": (lambda: ep.EquilibriumPropagation(ep.symmetric(1e-3), SETTLE, SETTLE, stacked=False), 1e-4),
    "continual": (lambda: ep.learning.ContinualEP(ep.symmetric(1e-3), SETTLE, SETTLE, 1e-9), 1e-4),
    "agnostic": (lambda: ep.learning.AgnosticEP(ep.symmetric(1e-3), SETTLE, SETTLE, 1e-6), 1e-4),
    "infinitesimal": (lambda: ep.InfinitesimalNudge(SETTLE, ep.settling.ConjugateGradients(60, 0)), 1e-7),
    "infinitesimal-sweeps": (lambda: ep.InfinitesimalNudge(SETTLE, SETTLE), 1e-7),
    "implicit": (lambda: ep.ImplicitDifferentiation(SETTLE), 1e-7),
    "through-time": (lambda: ep.BackpropagationThroughTime(SETTLE, 55), 1e-7),
}


def slope(built, x, y, direction, step=1e-5):
    """Of the settled loss along ``direction``, by central differences."""
    model, parameters = equilibrium(built, ep.ImplicitDifferentiation(SETTLE)), learnt(built)
    at = torch.nn.utils.parameters_to_vector(parameters).detach()
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(at + sign * step * direction, parameters)
            values.append(float(model.loss(x, y)))
        torch.nn.utils.vector_to_parameters(at, parameters)
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("inner", [True, False], ids=["between nodes", "from the input"])
@pytest.mark.parametrize("kind", NONLINEAR)
def test_gradients_through_a_module_that_is_not_linear(kind, inner):
    """Every estimator against finite differences of the loss at rest."""
    built = network(NONLINEAR[kind](), inner=inner)
    x, y = torch.randn(4, UNITS), torch.arange(4)
    record = ep.Record()
    equilibrium(built, ep.ImplicitDifferentiation(SETTLE)).loss(x, y, record=record)
    assert float(record.free.residual.max()) < 1e-12
    direction = torch.randn(sum(p.numel() for p in learnt(built)))
    known = slope(built, x, y, direction)
    exact = None
    for name, (make, tolerance) in reversed(ESTIMATORS.items()):
        loss = equilibrium(built, make()).loss(x, y)
        found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, learnt(built))])
        exact = found if exact is None else exact
        assert float(found @ direction) == pytest.approx(known, rel=max(tolerance, 1e-5), abs=1e-9), name
        assert relative(found, exact) < tolerance, name


def test_dual_propagation_tends_to_backpropagation_through_such_a_module():
    built = network(NONLINEAR["tanh"]())
    x, y = torch.randn(4, UNITS), torch.arange(4)
    found = []
    for estimator in (ep.learning.DualPropagation(1e-4), ep.Backpropagation()):
        loss = equilibrium(built, estimator).loss(x, y)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, learnt(built))]))
    assert relative(*found) < 1e-5


def test_it_is_known_not_to_be_linear():
    for kind, make in NONLINEAR.items():
        built = network(make())
        assert built.couplings["ab"].bilinear is (kind == "linear"), kind


RANDOM = {
    "dropout": lambda: smooth(nn.Linear(UNITS, UNITS), nn.Dropout(0.5)),
    "slight dropout": lambda: smooth(nn.Linear(UNITS, UNITS), nn.Dropout(0.1)),
    "rrelu": lambda: smooth(nn.Linear(UNITS, UNITS), nn.RReLU()),
    "noise": lambda: smooth(nn.Linear(UNITS, UNITS), Noise()),
}
MIXING = {
    "batch norm": lambda: smooth(nn.Linear(UNITS, UNITS), nn.BatchNorm1d(UNITS)),
    "centred": lambda: smooth(nn.Linear(UNITS, UNITS), Centred()),
    "softmax over the batch": lambda: smooth(nn.Linear(UNITS, UNITS), nn.Softmax(0)),
}


@pytest.mark.parametrize("inner", [True, False], ids=["between nodes", "from the input"])
@pytest.mark.parametrize("kind", RANDOM | MIXING)
def test_a_module_that_draws_or_mixes_examples_is_refused(kind, inner):
    module = (RANDOM | MIXING)[kind]()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ep.InputError, match=r"(?i)random|example|twice"):
        network(module, inner=inner)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key  # the probe leaves running means as they were


def test_the_probe_of_a_module_leaves_the_generator_and_the_grads_alone():
    module = NONLINEAR["tanh"]()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    nodes = {"x": ep.Node((UNITS,)), "a": ep.Node((UNITS,), ep.tanh)}
    ep.Network(nodes, {"xa": ep.Synapse("x", "a", module)})
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training


def test_a_batch_norm_that_is_fixed_is_a_linear_map():
    module = smooth(nn.Linear(UNITS, UNITS), nn.BatchNorm1d(UNITS)).eval()
    built = network(module)
    assert built.couplings["ab"].bilinear


class Squashing(ep.energy.Map):
    """Says by default that it is linear, and is not."""

    def __init__(self, linear=None):
        super().__init__()
        self.in_shape = self.out_shape = (UNITS,)
        self.weight = nn.Parameter(torch.randn(UNITS, UNITS) / UNITS)
        if linear is not None:
            self.linear = linear

    def linearize(self, pre):
        value, pullback, *_ = torch.func.vjp(self.carry, pre)
        return ep.energy.Linearization(
            value,
            lambda move: torch.func.jvp(self.carry, (pre,), (move,))[1],
            lambda post: pullback(post)[0],
            lambda examples: self.linearize(pre[examples]),
        )

    def carry(self, pre):
        return torch.tanh(pre @ self.weight.T)


@pytest.mark.parametrize("inner", [True, False], ids=["between nodes", "from the input"])
def test_a_map_that_says_it_is_linear_and_is_not_is_refused(inner):
    with pytest.raises(ep.InputError, match="linear"):
        network(Squashing(), inner=inner)
    network(Squashing(linear=False), inner=inner)


def test_in_separate_feedback_too():
    nodes = {"x": ep.Node((UNITS,)), "a": ep.Node((UNITS,), ep.tanh), "b": ep.Node((UNITS,), ep.tanh)}
    plain = ep.Dense((UNITS,), (UNITS,))
    for maps in (
        (Squashing(), plain),
        (plain, Squashing()),
        (RANDOM["dropout"](), plain),
        (plain, MIXING["centred"]()),
    ):
        couplings = {
            "xa": ep.Synapse("x", "a", nn.Linear(UNITS, UNITS)),
            "ab": ep.energy.SeparateFeedback("a", "b", *maps),
        }
        with pytest.raises(ep.InputError):
            ep.Network(nodes, couplings)


class Softmax(ep.Unit):
    """Units that share what they have: s = softmax(a). Says nothing, so it is taken to act elementwise."""

    low, high = 0.0, 1.0

    def response(self, drive):
        return torch.softmax(drive, 1)

    def potential(self, state):
        return torch.xlogy(state, state)


class Declared(Softmax):
    elementwise = False


class Centring(ep.Unit):
    def response(self, drive):
        return drive - drive.flatten(1).mean(1).view(-1, *(1 for _ in drive.shape[1:]))

    def potential(self, state):
        return 0.5 * state.square()


class ByRank(ep.Unit):
    """Only the largest of a node's units is on."""

    def response(self, drive):
        return (drive == drive.amax(1, keepdim=True)).to(drive)

    def potential(self, state):
        return 0 * state


@pytest.mark.parametrize("unit", [Softmax(), Centring(), ByRank()], ids=lambda u: type(u).__name__)
@pytest.mark.parametrize("shape", [(UNITS,), (3, 4, 4)], ids=str)
def test_a_unit_that_is_not_elementwise_and_says_it_is_is_refused(unit, shape):
    nodes, synapse = {"x": ep.Node(shape), "a": ep.Node(shape, unit)}, ep.Synapse("x", "a", ep.Dense(shape, shape))
    with pytest.raises(ep.InputError, match="elementwise"):
        ep.Network(nodes, {"xa": synapse})


def test_a_unit_that_says_so_is_taken():
    nodes = {"x": ep.Node((UNITS,)), "a": ep.Node((UNITS,), Declared())}
    built = ep.Network(nodes, {"xa": ep.Synapse("x", "a", ep.Dense((UNITS,), (UNITS,)))})
    model = equilibrium(built, ep.ImplicitDifferentiation(ep.FixedSweeps(2)))
    torch.testing.assert_close(model(torch.randn(3, UNITS)).sum(1), torch.ones(3))


@pytest.mark.parametrize(
    "unit",
    [ep.identity, ep.tanh, ep.sigmoid, ep.hard_sigmoid, ep.energy.smooth_clip, ep.energy.half_hard_sigmoid],
    ids=str,
)
def test_the_librarys_units_are_elementwise(unit):
    assert unit.elementwise


def test_the_infinitesimal_nudge_is_the_exact_limit_by_default():
    assert ep.InfinitesimalNudge(SETTLE).damping == 0
    torch.manual_seed(0)
    layers = [ep.DenseLayer(8, ep.tanh), ep.DenseLayer(8, ep.tanh), ep.DenseLayer(4, ep.tanh)]
    built = ep.chain((6,), layers, ep.SquaredError)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(0.8)
    x, y = torch.randn(5, 6), torch.arange(5) % 4
    found = []
    for estimator in (
        ep.InfinitesimalNudge(ep.FixedSweeps(200), ep.settling.ConjugateGradients(40, 0)),
        ep.InfinitesimalNudge(ep.FixedSweeps(200), ep.FixedSweeps(200)),
        ep.ImplicitDifferentiation(ep.FixedSweeps(200)),
    ):
        loss = equilibrium(built, estimator).loss(x, y)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, learnt(built))]))
    assert relative(found[0], found[2]) < 1e-8
    assert relative(found[1], found[2]) < 1e-8
