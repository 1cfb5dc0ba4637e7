"""Substrates: the ideal one changes no bit, each gate does what it says, and the shipped check notices wrong ones."""

from dataclasses import dataclass, replace

import pytest
import torch
from every_estimator import EXACT, REST, WAYS, gradients, relative
from pages import section

import eqprop as ep
from eqprop import testing
from eqprop.energy import Nudge, Substrate, read_weights
from eqprop.energy.substitution import swap
from eqprop.learning import forms

RUST = section("A substrate").Rust
DRIFTING = {"continual", "agnostic"}
"""They move the parameters themselves, of which a tenth is lost when they are read again."""


def network(seed=0, activation=ep.tanh):
    torch.manual_seed(seed)
    layers = [ep.DenseLayer(5, activation), ep.DenseLayer(3, ep.identity)]
    return ep.chain((4,), layers, ep.SquaredError).double()


def batch():
    torch.manual_seed(1)
    return torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 3


def nudging(stencil, form=forms.states, **more):
    return ep.EquilibriumPropagation(stencil, REST, REST, form=form, **more)


def part(net, found):
    """By parameter name; the data's share is left out."""
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    return dict(zip(sizes, found[: sum(sizes.values())].split(list(sizes.values())), strict=True))


@pytest.mark.parametrize("name", WAYS)
def test_on_the_ideal_substrate_every_estimator_gives_the_same_bits(name):
    net, way = network(), WAYS[name]
    found = [gradients(each, way.make(0.01), *batch()) for each in (net, net.on(Substrate()))]
    assert torch.equal(*found)


@pytest.mark.parametrize("name", [name for name in WAYS if name not in DRIFTING])
def test_on_rust_learning_is_that_of_the_weights_that_are_read(name):
    """The local rule multiplies activities: the gradient by a weight that is read goes to the parameter as it is."""
    net, twin, way = network(), network(), WAYS[name]
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.9)
    found, right = gradients(net.on(RUST()), way.make(0.01), *batch()), gradients(twin, way.make(0.01), *batch())
    assert relative(found, right) < 1e-9
    assert relative(found, gradients(net, way.make(0.01), *batch())) > 1e-2


def test_predictions_feel_rust_and_parameters_stay():
    net, x = network(), batch()[0]
    before = [p.clone() for p in net.parameters()]
    model, rusty = (ep.Equilibrium(each, EXACT) for each in (net, net.on(RUST())))
    assert not torch.allclose(model(x), rusty(x))
    assert all(torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))
    assert [id(p) for p in rusty.parameters()] == [id(p) for p in net.parameters()]
    assert model.network.substrate.is_ideal


class Offset(Substrate):
    """All measurements of a unit are off by the same."""

    def __init__(self, by=0.1):
        self.by = by

    def measured(self, state, reading):
        return {node: value + self.by for node, value in state.items()}


@pytest.mark.parametrize("form", [forms.states, forms.displacements])
@pytest.mark.parametrize("stencil", [ep.one_sided(0.1), ep.symmetric(0.1)])
def test_a_shared_offset_drops_out_of_biases_and_enters_weights_by_what_moved(stencil, form):
    """(s + c)(t + c) less its free value differs from that without c by c times the changes of s and t."""
    net, (x, y) = network(), batch()
    estimator = nudging(stencil, form)
    ideal = part(net, gradients(net, estimator, x, y))
    found = part(net, gradients(net.on(Offset(0.1)), estimator, x, y))
    low, high = "couplings.layer1_bias.bias", "couplings.layer2_bias.bias"
    for name in (low, high):
        torch.testing.assert_close(found[name], ideal[name], rtol=1e-9, atol=1e-12)
    between = "couplings.layer1_layer2.map.weight"
    moved = 0.1 * (ideal[high][:, None] + ideal[low][None, :])  # a bias learns by the change of its node
    torch.testing.assert_close(found[between].view(3, 5), ideal[between].view(3, 5) + moved, rtol=1e-9, atol=1e-11)


def test_predictions_are_measured():
    net, x = network(), batch()[0]
    model, off = (ep.Equilibrium(each, EXACT) for each in (net, net.on(Offset(0.1))))
    torch.testing.assert_close(off(x), model(x) + 0.1)


def test_an_offset_of_one_reading_counts_one_over_beta():
    class Later(Substrate):
        def measured(self, state, reading):
            return {node: value + (0.01 if reading == 1 else 0.0) for node, value in state.items()}

    net, (x, y), name = network(), batch(), "couplings.layer2_bias.bias"
    for beta, stacked in ((0.1, True), (0.05, True), (0.05, False)):
        estimator = nudging(ep.one_sided(beta), stacked=stacked)
        ideal, found = (part(net, gradients(each, estimator, x, y))[name] for each in (net, net.on(Later())))
        torch.testing.assert_close(found - ideal, torch.full_like(ideal, -0.01 / beta))


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize(
    ("stencil", "readings"),
    [
        (ep.one_sided(0.1), [0, 1]),
        (ep.symmetric(0.1), [0, 1, 2]),
        (ep.learning.five_point(0.1), [0, 1, 2, 3, 4]),
        (ep.learning.holomorphic(0.1, 4), [0, 1, 2, 3]),
    ],
    ids=["one-sided", "symmetric", "five-point", "holomorphic"],
)
def test_readings_are_counted_over_the_nudged_phases(stencil, readings, stacked):
    seen = set()

    class Watching(Substrate):
        def measured(self, state, reading):
            seen.add(reading)
            return state

    gradients(network().on(Watching()), nudging(stencil, stacked=stacked), *batch())
    assert sorted(seen) == [-1, *readings]


class Weak(Substrate):
    """Half of every nudge arrives; a clamp moves its node half of the way."""

    def injected(self, nudge):
        return Nudge(nudge.loss, nudge.target, 0.5 * nudge.scale, nudge.quadratic)

    def aimed(self, node, gap):
        return 0.5 * gap


@pytest.mark.parametrize("form", [forms.states, forms.displacements])
@pytest.mark.parametrize("teacher", [ep.learning.force, ep.learning.clamp])
def test_half_a_nudge_is_that_of_half_the_beta(teacher, form):
    net = network()
    found = gradients(net.on(Weak()), nudging(ep.symmetric(0.2), form, teacher=teacher), *batch())
    right = 0.5 * gradients(net, nudging(ep.symmetric(0.1), form, teacher=teacher), *batch())
    parameters = sum(p.numel() for p in net.parameters())  # data get what comes back over the synapse: the same
    assert relative(found[:parameters], right[:parameters]) < 1e-9
    assert relative(found[parameters:], right[parameters:]) < 1e-9


class Slopes(Substrate):
    def unit(self, name, node):
        return replace(node, unit=ep.energy.Clip(0.5, -2.0, 2.0)) if name == "layer1" else node


@pytest.mark.parametrize("name", ["symmetric states", "symmetric displacements", "implicit", "dual", "backpropagation"])
def test_units_as_they_were_built(name):
    net, built = network(), network(activation=ep.energy.Clip(0.5, -2.0, 2.0))
    estimator = WAYS[name].make(0.01)
    found, right = gradients(net.on(Slopes()), estimator, *batch()), gradients(built, estimator, *batch())
    assert relative(found, right) < 1e-12  # states are subtracted as they are measured: rounding differs


def test_dual_propagation_reads_its_two_states():
    """An offset of all measurements drops out of their difference, and moves the mean at which drives are read."""
    net, estimator = network(), ep.learning.DualPropagation(0.1)
    ideal, found = (part(net, gradients(each, estimator, *batch())) for each in (net, net.on(Offset(0.1))))
    low, high = "couplings.layer1_bias.bias", "couplings.layer2_bias.bias"
    torch.testing.assert_close(found[low], ideal[low], rtol=1e-9, atol=1e-12)
    weight = "couplings.layer1_layer2.map.weight"
    torch.testing.assert_close(found[weight].view(3, 5), ideal[weight].view(3, 5) + 0.1 * ideal[high][:, None])


@dataclass(frozen=True)
class Anew(Substrate):
    """Weights are read with an error that is fixed for each reading."""

    size: float = 0.0
    per_phase = True

    def mounted(self, name, coupling, reading):
        generator = torch.Generator().manual_seed(reading)

        def read(key, weight):
            return weight + self.size * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)

        return read_weights(coupling, read)


def test_weights_that_are_read_anew_in_each_phase():
    """Phases settle in turn, as states: the change of the weights moves them too, and counts one over beta."""
    net = network()
    right = gradients(net, nudging(ep.symmetric(0.1)), *batch())
    for form in (forms.states, forms.displacements):
        assert (
            relative(gradients(net.on(Anew()), nudging(ep.symmetric(0.1), form, stacked=False), *batch()), right) < 1e-9
        )
        errors = []
        for beta in (0.01, 0.005):
            made = nudging(ep.symmetric(beta), form, stacked=False)
            found, ideal = gradients(net.on(Anew(1e-4)), made, *batch()), gradients(net, made, *batch())
            errors.append(float((found - ideal).norm()))
        assert errors[1] / errors[0] == pytest.approx(2, rel=0.1)


def test_each_phase_has_its_own_reading():
    """The settling of a phase and what its rule reads are of one reading."""
    seen = []

    class Counting(Substrate):
        per_phase = True

        def mounted(self, name, coupling, reading):
            seen.append(reading)
            return coupling

    net = network().on(Counting())
    gradients(net, nudging(ep.symmetric(0.1), stacked=False), *batch())
    assert list(dict.fromkeys(seen)) == [0, 1, 2]
    assert {reading: seen.count(reading) for reading in (0, 1, 2)} == {0: 4, 1: 8, 2: 8}


@pytest.mark.parametrize(
    "name", ["symmetric states", "one-sided displacements", "oscillating", "continual", "agnostic", "predictive"]
)
def test_phases_that_share_a_reading_are_refused_where_it_is_read_anew(name):
    """At the call, before anything settles."""
    model = ep.Equilibrium(network().on(Anew()), WAYS[name].make(0.01))
    with pytest.raises(ep.InputError, match=r"stacked=False"):
        model.loss(*batch())


def test_the_shipped_check_takes_right_ones():
    for substrate in (Substrate(), RUST(), Offset(), Weak(), Slopes(), Anew(0.1)):
        testing.check_substrate(substrate)


def change_in_place(self, name, coupling, reading):
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.mul_(0.9)
    return coupling


def constant(self, name, coupling, reading):
    return swap(coupling, {id(w): (0.9 * w).detach() for w in coupling.parameters()})


class Louder(Nudge):
    def drive(self, node, *states):
        return 2 * super().drive(node, *states)


class Doubled(ep.Synapse):
    def drive(self, node, *states):
        return 2 * super().drive(node, *states)


def doubled(self, name, coupling, reading):
    if not isinstance(coupling, ep.Synapse) or name == "input_layer1":
        return coupling
    found = swap(coupling, {})
    found.__class__ = Doubled
    return found


WRONG = {
    "in place": ({"mounted": change_in_place}, "in place"),
    "no graph": ({"mounted": constant}, "without a graph"),
    "not straight through": (
        {"mounted": lambda self, n, c, r: swap(c, {id(w): 0.9 * w for w in c.parameters()})},
        "straight through",
    ),
    "another each time": (
        {"mounted": lambda self, n, c, r: read_weights(c, lambda key, w: w + torch.randn_like(w))},
        "not the same twice",
    ),
    "another each phase": ({"mounted": lambda self, n, c, r: read_weights(c, lambda key, w: w + r)}, "per_phase"),
    "a coupling that is wrong": ({"mounted": doubled}, "drive and -grad"),
    "a unit that is wrong": (
        {
            "unit": lambda self, n, node: replace(
                node, unit=type("W", (ep.energy.Tanh,), {"difference": lambda *a: a[2]})()
            )
        },
        "difference",
    ),
    "no unit": ({"unit": lambda self, n, node: replace(node, unit=None)}, "takes the unit"),
    "another shape": ({"unit": lambda self, n, node: replace(node, shape=(7,))}, "changes the shape"),
    "measured in fewer bits": ({"measured": lambda self, s, r: {n: v.float() for n, v in s.items()}}, "measured"),
    "measured in part": ({"measured": lambda self, s, r: dict(list(s.items())[:1])}, "measured"),
    "aimed at one number": ({"aimed": lambda self, node, gap: gap.sum()}, "aimed"),
    "a nudge that is no gradient": (
        {"injected": lambda self, n: Louder(n.loss, n.target, n.scale)},
        "drive and -grad of the nudge",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_shipped_check_notices_wrong_ones(name):
    methods, words = WRONG[name]
    with pytest.raises(AssertionError, match=words):
        testing.check_substrate(type("Wrong", (Substrate,), methods)())
