"""The shipped conformance suite against plug-ins that are wrong in one way each: it must refuse every one."""

import pytest
import torch
from torch.nn import functional as F

import eqprop as ep
from eqprop import testing
from eqprop.energy.couplings import Field

UNITS = (5,)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def synapse(**overrides):
    """A dense synapse from a to b, with methods replaced."""
    wrong = type("Wrong", (ep.Synapse,), overrides)("a", "b", ep.Dense(UNITS, UNITS))
    wrong.bind({n: ep.Node(UNITS, ep.tanh) for n in "ab"})
    return wrong


class Doubled(ep.Synapse):
    def energy(self, *states):
        return 2 * super().energy(*states)

    def drive(self, node, *states):
        return 2 * super().drive(node, *states)


def doubled():
    other = Doubled("a", "b", ep.Dense(UNITS, UNITS)).double()
    other.bind({n: ep.Node(UNITS, ep.tanh) for n in "ab"})
    return other


class Quartic(ep.Coupling):
    nodes = ("a", "b")

    def energy(self, *states):
        return -(states[0].square() * states[1].square()).sum(1)


class Unequal(Quartic):
    """Its nodes descend different potentials, and `gain` does not say so."""

    symmetric = False

    def potential(self, node, *states):
        return (2.0 if node == "a" else 1.0) * self.energy(*states)


class Mixing(ep.Coupling):
    nodes = ("a",)

    def energy(self, *states):
        return (states[0] - states[0].mean(0)).square().sum(1)


COUPLINGS = {
    "drive": lambda: synapse(drive=lambda self, node, *s: 1.01 * ep.Coupling.drive(self, node, *s)),
    "given another term": lambda: synapse(clamp=lambda self, data: self if data else doubled()),
    "held at half": lambda: synapse(
        clamp=lambda self, data: Field("b", 0.5 * self.map(data["a"])) if "a" in data else self
    ),
    "select": lambda: synapse(select=lambda self, examples: doubled(), clamp=lambda self, data: self),
    "change": lambda: synapse(contrast_difference=lambda self, s, m: -(self.map(m[0]) * s[1]).sum(1)),
    "tangent": lambda: synapse(tangent=lambda self, *s: doubled()),
    "reciprocal": lambda: type("Claims", (Unequal,), {"reciprocal": True})(),
    "bilinear": lambda: type("Claims", (Quartic,), {"bilinear": True})(),
    "mixing": Mixing,
    "holomorphic": lambda: synapse(contrast=lambda self, *s: -(self.map(s[0]) * s[1].conj()).sum(1)),
}


def test_a_coupling_that_does_not_claim_to_be_reciprocal_passes():
    testing.check_coupling(Unequal(), {"a": UNITS, "b": UNITS})


@pytest.mark.parametrize("make", COUPLINGS.values(), ids=COUPLINGS.keys())
def test_couplings(make):
    testing.check_coupling(synapse(), {"a": UNITS, "b": UNITS})
    with pytest.raises(AssertionError, match="disagree"):
        testing.check_coupling(make(), {"a": UNITS, "b": UNITS})


MAPS = {
    "pull": {
        "linearize": lambda self, pre: ep.Dense.linearize(self, pre)._replace(vjp=lambda post: 2 * post @ self.weight)
    },
    "push": {
        "linearize": lambda self, pre: ep.Dense.linearize(self, pre)._replace(jvp=lambda change: 2 * self(change))
    },
    "value": {"linearize": lambda self, pre: ep.Dense.linearize(self, pre)._replace(value=2 * self(pre))},
    "select": {
        "linearize": lambda self, pre: ep.Dense.linearize(self, pre)._replace(
            select=lambda examples: self.linearize(pre)
        )
    },
    "holomorphic": {
        "linearize": lambda self, pre: ep.Dense.linearize(self, pre)._replace(
            jvp=lambda change: ep.Dense.forward(self, change.conj())
        )
    },
    "transpose": {"transpose": lambda self, pre, post: post @ self.weight.T},  # fits, as the map is square
    "linear": {
        "forward": lambda self, pre: torch.tanh(F.linear(pre, self.weight)),
        "linearize": lambda self, pre: bent(self, pre),
        "transpose": lambda self, pre, post: bent(self, pre).vjp(post),
    },
}


def bent(self, pre):
    value = torch.tanh(F.linear(pre, self.weight))
    slope = 1 - value.square()
    return ep.Dense.linearize(self, pre)._replace(
        value=value,
        jvp=lambda d: slope * F.linear(d, self.weight),
        vjp=lambda post: (slope * post) @ self.weight,
        select=lambda examples: bent(self, pre[examples]),
    )


@pytest.mark.parametrize("overrides", MAPS.values(), ids=MAPS.keys())
def test_maps(overrides):
    with pytest.raises(AssertionError, match="disagree"):
        testing.check_map(type("Wrong", (ep.Dense,), overrides)(UNITS, UNITS))


ACTIVATIONS = {
    "falls": {"response": lambda self, drive: -drive, "potential": lambda self, s: -0.5 * s.square()},
    "another potential": {"response": lambda self, drive: torch.tanh(drive), "potential": lambda self, s: s.square()},
    "difference": {
        "response": lambda self, drive: drive,
        "potential": lambda self, s: 0.5 * s.square(),
        "difference": lambda self, drive, change: 1.01 * change,
    },
    "holomorphic": {
        "holomorphic": True,
        "response": lambda self, drive: drive.conj(),
        "potential": lambda self, s: 0.5 * s.square(),
    },
    "holomorphic in another way": {
        "holomorphic": True,
        "response": lambda self, drive: torch.tanh(drive) * (1 + drive - drive.conj()),
        "potential": ep.tanh.potential,
        "difference": ep.tanh.difference,
    },
    "another holomorphic function": {
        "holomorphic": True,
        "response": lambda self, drive: 2 * drive if drive.is_complex() else drive,
        "potential": lambda self, s: 0.5 * s.square(),
    },
    "needlessly without potential": {
        "response": lambda self, drive: drive,
        "potential": lambda self, s: ep.energy.smooth_clip.potential(s),
    },
}


@pytest.mark.parametrize("methods", ACTIVATIONS.values(), ids=ACTIVATIONS.keys())
def test_units(methods):
    with pytest.raises(AssertionError, match=r"falls|not the minimum|disagree|has a potential"):
        testing.check_unit(type("Wrong", (ep.Unit,), methods)())


class Rows(ep.Unit):
    """A softmax of a vector, right in every way."""

    elementwise = False
    low, high = 0.0, 1.0

    def response(self, drive):
        return drive.softmax(-1)

    def potential(self, state):
        return torch.xlogy(state, state)


class Sine(ep.Unit):
    """Without a response."""

    def potential(self, state):
        return -state.cos()


PARABOLA = ep.energy.Clip(0.5, -1.0, 1.0)
OTHER_UNITS = {
    "says it is elementwise": (Rows, {"elementwise": True}, "one by one"),
    "mixes examples": (Rows, {"response": lambda self, drive: (drive - drive.mean(0)).softmax(-1)}, "one by one"),
    "no gradient": (Rows, {"response": lambda self, drive: drive.softmax(-1).flip(-1)}, "transpose"),
    "another potential": (Rows, {"potential": lambda self, s: 2 * torch.xlogy(s, s)}, "not the minimum"),
    "out of range": (Rows, {"high": 0.1}, "above `high`"),
    "too long a step": (Sine, {"rate": 9.0}, "too long"),
    "another force": (Sine, {"force": lambda self, state: state.sin()}, "force and -grad"),
    "stiffness": (ep.energy.Clip, {"response": lambda self, a, k=0.0: PARABOLA.response(a)}, "below `low`|minimum"),
    "stiff difference": (
        ep.energy.Clip,
        {"difference": lambda self, a, d, k=0.0: self.response(a + d, k) - self.response(a, k)},
        "difference",
    ),
}


@pytest.mark.parametrize("name", OTHER_UNITS)
def test_units_of_other_kinds(name):
    base, methods, words = OTHER_UNITS[name]
    testing.check_unit(base())
    with pytest.raises(AssertionError, match=words):
        testing.check_unit(type("Wrong", (base,), methods)())


@pytest.mark.parametrize("unit", [ep.energy.Wire(), ep.energy.Wire(0.0, 2.0)], ids=str)
def test_units_that_rest_by_their_terms_alone(unit):
    testing.check_unit(unit)


def loss(**overrides):
    return type("Wrong", (ep.SquaredError,), overrides)("a", UNITS)


TARGET = torch.randn(3, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    "overrides",
    [
        {"force": lambda self, node, target, *s: s[0] - target},
        {"forward": lambda self, target, *s: (s[0] - target).square().sum()},
        {"forward": lambda self, target, *s: 0.5 * ((s[0] - target) * (s[0] - target).conj()).sum(1)},
    ],
    ids=["force", "shape", "holomorphic"],
)
def test_losses(overrides):
    with pytest.raises(AssertionError, match=r"force|one number|holomorphic"):
        testing.check_loss(loss(**overrides), TARGET, {"a": UNITS})


def network():
    net = ep.chain((3,), [ep.DenseLayer(4, ep.tanh), ep.DenseLayer(2, ep.tanh)])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    return net


def in_place(landscape, state):
    for node, value in landscape.step(state, list(landscape.nodes)).items():
        state[node].copy_(value)
    return state


SWEEPS = {
    "lazy": lambda landscape, state: state | landscape.step(state, ["layer1"]),
    "damped to zero": lambda landscape, state: {n: 0.9 * v for n, v in ep.synchronous(landscape, state).items()},
    "in place": in_place,
    "forgets a node": lambda landscape, state: {"layer1": state["layer1"]},
}


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS.keys())
def test_sweeps(sweep):
    with pytest.raises((AssertionError, KeyError)):
        testing.check_sweep(sweep, network())


class Flatters(ep.Solver):
    def __call__(self, landscape, start, memory=None):
        settled = ep.FixedSweeps(1)(landscape, start)
        return settled._replace(residuals={node: 0 * value for node, value in settled.residuals.items()})


class Claims(ep.Solver):
    """Wrong in one field of its solution."""

    def __init__(self, **fields):
        self.fields = fields

    def __call__(self, landscape, start, memory=None):
        return ep.FixedSweeps(2)(landscape, start)._replace(**self.fields)


def test_solvers():
    testing.check_solver(ep.FixedSweeps(1), network())
    with torch.no_grad(), pytest.raises(AssertionError, match="would still move"):
        testing.check_solver(Flatters(), network())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"status": torch.zeros(3), "distance": torch.zeros(3)}, "the status says SETTLED"),
        ({"status": torch.full((3,), 7)}, "status"),
        ({"distance": torch.zeros(())}, "one number an example"),
        ({"memory": {"velocity": torch.zeros(2, 4)}}, "2 rows for 3 examples"),
    ],
)
def test_what_solvers_claim(fields, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_solver(Claims(**fields), network())


def kept(module):
    """Its parameters: where they are, what they hold and in which precision."""
    return [(name, p.data_ptr(), p.dtype, p.detach().clone()) for name, p in module.named_parameters()]


CHECKS = {
    "map": lambda: (ep.Dense(UNITS, UNITS), testing.check_map, ()),
    "coupling": lambda: (synapse(), testing.check_coupling, ({"a": UNITS, "b": UNITS},)),
    "loss": lambda: (
        ep.ReadoutCrossEntropy("a", UNITS, 4),
        testing.check_loss,
        (torch.tensor([0, 3, 1]), {"a": UNITS}),
    ),
}


def unchanged(module, check):
    module.train()
    before = kept(module)
    check()
    for (name, where, dtype, value), (same, at, now, held) in zip(before, kept(module), strict=True):
        assert (name, where, dtype) == (same, at, now)
        assert torch.equal(value, held)
    assert before
    assert before[0][2] == torch.float32
    assert module.training


@pytest.mark.parametrize("what", CHECKS)
def test_checks_leave_modules_as_they_are(what):
    module, check, arguments = CHECKS[what]()
    if what == "loss":
        module.bind({"a": ep.Node(UNITS, ep.tanh)})
    unchanged(module, lambda: check(module, *arguments))


@pytest.mark.parametrize(
    ("check", "what"), [(testing.check_sweep, ep.alternating), (testing.check_solver, ep.FixedSweeps(20))]
)
def test_checks_leave_networks_as_they_are(check, what):
    net = network()
    unchanged(net, lambda: check(what, net))


def test_a_loss_that_mixes_examples():
    mixing = loss(
        forward=lambda self, target, *s: (s[0] - s[0].mean(0)).square().sum(1),
        force=lambda self, node, target, *s: ep.Loss.force(self, node, target, *s),
    )
    with pytest.raises(AssertionError):
        testing.check_loss(mixing, TARGET, {"a": UNITS})
