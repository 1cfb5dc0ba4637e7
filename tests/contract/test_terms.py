"""Terms by any name, and terms that a user's estimator adds: nothing is overwritten, forgotten or taken for granted."""

from dataclasses import dataclass

import pytest
import torch
from estimators import SETTINGS, data, dense, equilibrium, gradients, learnt, named, relative
from torch.nn import functional as F

import eqprop as ep

SETTLE = ep.FixedSweeps(40)
NAMES = [
    "nudge",
    "force_layer2",
    "force_layer1",
    "force",
    "loss",
    "layer1",
    "input",
    "clamp",
    "extra",
    "free",
    "x y",
    "é",
]
REFUSED = [
    "a.b",
    "",
    "keys",
    "values",
    "items",
    "pop",
    "update",
    "clear",
    "type",
    "training",
    "forward",
    "_modules",
    ".",
]


def renamed(network, renaming):
    """The same network, its couplings by other names."""
    terms = {renaming.get(name, name): coupling for name, coupling in network.terms.items()}
    return ep.Network(network.nodes, terms, network.loss)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.kind == "dense"], ids=named)
def test_a_coupling_by_any_name_has_the_same_gradients(setting):
    x, y = setting.data()
    model = setting.model()
    by_loss, by_output = gradients(model.loss(x, y), model), gradients(F.cross_entropy(model(x), y), model)
    for name in NAMES:
        for renaming in ({"layer1_layer2": name}, {"layer2_bias": name, "input_layer1": f"{name}2"}):
            model = setting.case.model(renamed(setting.network(), renaming))
            assert torch.equal(gradients(model.loss(x, y), model), by_loss), name
            assert torch.equal(gradients(F.cross_entropy(model(x), y), model), by_output), name


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_does_not_serve_is_refused_by_name(name):
    base = dense()
    with pytest.raises(ep.InputError) as found:
        renamed(base, {"layer1_layer2": name})
    assert repr(name) in str(found.value)


def test_two_couplings_of_one_name_are_refused():
    base = dense()
    with pytest.raises(ep.InputError, match="layer1_bias"):
        ep.Network(base.nodes, [*base.terms.values(), ep.Bias("layer1", (5,))], base.loss)


def test_names_that_are_no_strings_are_refused():
    base = dense()
    for name in (3, None, ("a", "b")):
        with pytest.raises(ep.InputError):
            renamed(base, {"layer1_layer2": name})


class Tether(ep.Coupling):
    """strength <a, b>, between two nodes of one shape, or <a, a> / 2 on one node."""

    def __init__(self, *nodes, strength=0.1):
        super().__init__()
        self.nodes, self.strength = nodes, strength

    def energy(self, *states):
        return 0.5 * len(states) * self.strength * (states[0] * states[-1]).flatten(1).sum(1)


@dataclass(frozen=True)
class Adding(ep.Estimator):
    """A user's estimator: another one, on the landscape with one more term."""

    estimator: ep.Estimator
    term: ep.Coupling
    name: str = "tether"

    def __call__(self, landscape):
        return self.estimator(landscape.with_term(self.name, self.term))


def triangle(extra=None):
    """input - a - b - c, where ``a`` and ``c`` have one colour; maybe with a term more."""
    torch.manual_seed(0)
    nodes = {"x": ep.Node((6,)), **{name: ep.Node((5,), ep.tanh) for name in "abc"}}
    edges = [("x", "a"), ("a", "b"), ("b", "c")]
    couplings = {p + q: ep.Synapse(p, q, ep.Dense(nodes[p].shape, nodes[q].shape)) for p, q in edges}
    couplings |= {f"{name}_bias": ep.Bias(name, (5,)) for name in "abc"}
    couplings |= {"tether": extra} if extra is not None else {}
    network = ep.Network(nodes, couplings, ep.SquaredError("c", (5,)))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.6)
    return network


ESTIMATORS = {
    "ep": lambda: ep.EquilibriumPropagation(ep.symmetric(0.1), SETTLE, SETTLE),
    "ep-states": lambda: ep.EquilibriumPropagation(ep.symmetric(0.1), SETTLE, SETTLE, form=ep.learning.forms.states),
    "ep-vector-field": lambda: ep.EquilibriumPropagation(ep.symmetric(0.1), SETTLE, SETTLE, ep.vector_field),
    "ep-clamp": lambda: ep.EquilibriumPropagation(ep.one_sided(0.3), SETTLE, SETTLE, teacher=ep.learning.clamp),
    "continual": lambda: ep.learning.ContinualEP(ep.symmetric(0.1), SETTLE, ep.FixedSweeps(10), 1e-3),
    "agnostic": lambda: ep.learning.AgnosticEP(ep.symmetric(0.1), SETTLE, ep.FixedSweeps(10), 1e-3),
    "predictive": lambda: ep.learning.PredictiveLearning(
        ep.FixedSweeps(20), SETTLE, 3, 2, ep.learning.LeastSquares((1,))
    ),
    "infinitesimal": lambda: ep.InfinitesimalNudge(SETTLE, ep.settling.ConjugateGradients(40, 0)),
    "infinitesimal-sweeps": lambda: ep.InfinitesimalNudge(SETTLE, SETTLE),
    "implicit": lambda: ep.ImplicitDifferentiation(SETTLE),
    "through-time": lambda: ep.BackpropagationThroughTime(SETTLE, 35),
    "backpropagation": lambda: ep.Backpropagation(),
    "dual": lambda: ep.learning.DualPropagation(0.1),
}
TETHERS = {
    "neighbours": lambda: Tether("a", "b"),
    "one colour": lambda: Tether("a", "c"),
    "one node": lambda: Tether("b"),
    "the output": lambda: Tether("c"),
}


@pytest.mark.parametrize("kind", TETHERS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_term_that_an_estimator_adds_is_as_one_that_the_network_has(name, kind):
    """The gradients of input weights and biases are kept; a term that couples one colour changes the colours."""
    tether = TETHERS[kind]()
    x, y = data(triangle())
    added = equilibrium(triangle(), Adding(ESTIMATORS[name](), tether))
    own = equilibrium(triangle(tether), ESTIMATORS[name]())
    without = equilibrium(triangle(), ESTIMATORS[name]())
    for loss in (lambda m: m.loss(x, y), lambda m: F.cross_entropy(m(x), y)):
        found, known = gradients(loss(added), added), gradients(loss(own), own)
        tolerance = 0.05 if name in ("continual", "agnostic", "predictive") else 1e-8
        assert relative(found, known) < tolerance
        if name not in ("dual", "backpropagation"):  # which ask a node's own terms at zero, where these push nothing
            assert relative(found, gradients(loss(without), without)) > 1e-4
    for parameter, gradient in zip(learnt(added), torch.autograd.grad(added.loss(x, y), learnt(added)), strict=True):
        assert float(gradient.abs().max()) > 0, tuple(parameter.shape)


def test_a_landscape_of_several_terms_more():
    """Added in turn, on a landscape of some examples, and rebuilt."""
    network, x = triangle(), data(triangle())[0]
    terms = {"first": Tether("a", "c"), "second": Tether("b"), "third": Tether("a", "b")}
    landscape = network.landscape(x)
    for name, term in terms.items():
        landscape = landscape.with_term(name, term)
    some = torch.tensor([4, 0, 0])
    state = {name: 2 * torch.rand(6, 5) - 1 for name in "abc"}
    known = network.landscape(x).energy(state) + sum(t.energy(*(state[n] for n in t.nodes)) for t in terms.values())
    torch.testing.assert_close(landscape.energy(state), known)
    part = {name: value[some] for name, value in state.items()}
    torch.testing.assert_close(landscape.select(some).energy(part), known[some])
    torch.testing.assert_close(
        network.landscape(x).select(some).with_term("one", terms["first"]).energy(part),
        network.landscape(x).with_term("one", terms["first"]).energy(state)[some],
    )
    assert not any({"a", "c"} <= set(colour) or {"a", "b"} <= set(colour) for colour in landscape.colours)
    assert set(network.landscape(x).terms) == set(network.terms)  # what it was made of stays as it was


@pytest.mark.parametrize("name", ["xa", "a_bias", "bc", "tether"])
def test_a_name_that_is_taken_is_refused(name):
    landscape = triangle(Tether("a", "b")).landscape(data(triangle())[0])
    with pytest.raises(ep.InputError, match=name):
        landscape.with_term(name, Tether("a", "b"))
    with pytest.raises(ep.InputError, match="twice"):
        landscape.with_term("twice", Tether("a")).with_term("twice", Tether("a"))


def test_a_term_of_nodes_that_are_not_there_is_refused():
    landscape = triangle().landscape(data(triangle())[0])
    for nodes in (("a", "z"), ("z",)):
        with pytest.raises(ep.InputError, match="z"):
            landscape.with_term("tether", Tether(*nodes))


def test_conjugate_gradients_on_a_term_within_a_colour_are_exact():
    """The colours that a linear solver eliminates by are those of the landscape it is given, not the network's."""
    tether = Tether("a", "c", strength=0.4)
    x, y = data(triangle())
    found = []
    for estimator in (
        ep.InfinitesimalNudge(ep.FixedSweeps(200), ep.settling.ConjugateGradients(60, 0)),
        ep.InfinitesimalNudge(ep.FixedSweeps(200), ep.FixedSweeps(200)),
        ep.ImplicitDifferentiation(ep.FixedSweeps(200)),
    ):
        model = equilibrium(triangle(), Adding(estimator, tether))
        found.append(gradients(model.loss(x, y), model))
    assert relative(found[0], found[2]) < 1e-8
    assert relative(found[1], found[2]) < 1e-8


class Learning(Tether):
    """The same with a strength of its own, a parameter that the network does not have."""

    def __init__(self, *nodes):
        super().__init__(*nodes)
        self.strength = torch.nn.Parameter(torch.tensor(0.1))


def test_a_network_term_that_learns_by_the_name_nudge():
    """A coupling whose own gradient the nudge would have taken the place of."""
    x, y = data(triangle())
    for name, make in ESTIMATORS.items():
        by_name = []
        for own in ("strength", "nudge"):
            base = triangle()
            network = ep.Network(base.nodes, base.terms | {own: Learning("a", "b")}, base.loss)
            model = equilibrium(network, make())
            by_name.append(gradients(model.loss(x, y), model))
        assert torch.equal(*by_name), name
        assert float(by_name[0][-1].abs()) > 0
