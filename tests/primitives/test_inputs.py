"""Several clamped nodes, an output that is held, and none."""

import copy

import pytest
import torch
from every_estimator import EXACT, REST, gradients, relative
from pages import section

import eqprop as ep
from eqprop.diagnostics import compare
from eqprop.diagnostics.smoothing import smooth

NUDGED = ep.EquilibriumPropagation(ep.symmetric(1e-3), REST, REST)


def page():
    found = section("Several inputs, or none")
    return [copy.deepcopy(each).double() for each in (found.network, found.held, found.free)]


def batch(network):
    torch.manual_seed(1)
    return {name: torch.randn(5, *network.nodes[name].shape, dtype=torch.float64) for name in network.clamped}


LABELS = torch.arange(5) % 2


def test_both_inputs_get_the_slope_of_the_settled_loss():
    network, _, _ = page()
    data = {name: value.requires_grad_() for name, value in batch(network).items()}
    loss = ep.Equilibrium(network, NUDGED, "raise").loss(data, LABELS)
    found = dict(zip(data, torch.autograd.grad(loss, list(data.values())), strict=True))
    model = ep.Equilibrium(network, EXACT)
    for name, value in data.items():
        for unit in range(value[0].numel()):
            losses = []
            for step in (1e-5, -1e-5):
                moved = value.detach().clone()
                moved.view(5, -1)[0, unit] += step
                losses.append(float(model.loss(data | {name: moved}, LABELS).detach()))
            slope = (losses[0] - losses[1]) / 2e-5
            assert float(found[name].view(5, -1)[0, unit]) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_the_order_of_the_mapping_does_not_matter_and_rows_may_be_flat():
    network, _, _ = page()
    data = batch(network)
    model = ep.Equilibrium(network, NUDGED, "raise")
    other = {name: data[name].flatten(1) for name in reversed(data)}
    assert torch.equal(model(data), model(other))


def test_the_output_of_several_inputs_learns_through_any_loss():
    network, _, _ = page()
    network.loss = None
    data = batch(network)
    found = [
        torch.autograd.grad((ep.Equilibrium(network, each, "raise")(data) ** 3).sum(), list(network.parameters()))
        for each in (NUDGED, EXACT)
    ]
    assert relative(*(torch.cat([g.flatten() for g in each]) for each in found)) < 1e-4


def test_an_output_that_is_held_as_an_input():
    """What it is held at changes the rest of the network, which learns from a loss of its own."""
    network, held, _ = page()
    data = batch(held)
    taught = ep.Network(held.nodes, held.terms, ep.SquaredError("h", (6,)), clamped=held.clamped)
    torch.manual_seed(2)
    target = torch.randn(5, 6, dtype=torch.float64)
    assert relative(*(gradients(taught, each, data, target) for each in (NUDGED, EXACT))) < 1e-4
    free = {name: data[name] for name in network.clamped}
    rest = ep.Equilibrium(network, EXACT).settle(free).state
    agreed = ep.Equilibrium(held, EXACT).settle(free | {"y": rest["y"]}).state
    torch.testing.assert_close(agreed["h"], rest["h"])
    assert not torch.allclose(ep.Equilibrium(held, EXACT).settle(data).state["h"], rest["h"])


@pytest.mark.parametrize("shape", [(5, 0), (5, 1), (5,), (5, 3, 2)])
def test_no_input_at_all(shape):
    _, _, free = page()
    rows = torch.zeros(shape, dtype=torch.float64)
    found = []
    for each in (NUDGED, EXACT, ep.InfinitesimalNudge(REST, REST)):
        loss = ep.Equilibrium(free, each, "raise").loss(rows, LABELS)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(free.parameters()))]))
    assert relative(found[0], found[1]) < 1e-4
    assert relative(found[2], found[1]) < 1e-9


NOT_ROWS = [{}, None, [1.0], torch.zeros(()), torch.zeros(0, 1), torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64)]


@pytest.mark.parametrize("data", NOT_ROWS, ids=["mapping", "none", "list", "scalar", "empty", "float32", "int64"])
def test_what_does_not_say_how_many_examples_there_are(data):
    _, _, free = page()
    with pytest.raises(ep.InputError, match=r"no clamped node: pass a tensor \(batch, \.\.\.\) of torch\.float64"):
        ep.Equilibrium(free, NUDGED).settle(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["x"], "2 clamped nodes"),
        (lambda data: {"x": data["x"]}, "clamped nodes \\['x', 'context'\\]"),
        (lambda data: data | {"h": data["x"]}, "clamped nodes \\['x', 'context'\\]"),
        (lambda data: data | {"context": data["context"][:2]}, "different numbers of examples"),
        (lambda data: data | {"context": data["x"]}, "'context' takes"),
        (lambda data: data | {"context": [1.0]}, "'context' must be a tensor"),
        (lambda data: list(data.values()), "not a list"),
    ],
)
def test_data_that_do_not_fit(change, words):
    network, _, _ = page()
    with pytest.raises(ep.InputError, match=words):
        ep.Equilibrium(network, NUDGED).loss(change(batch(network)), LABELS)


def test_estimators_are_compared_on_several_inputs():
    network, _, _ = page()
    found = compare(network, batch(network), LABELS, {"EP": NUDGED, "infinitesimal": ep.InfinitesimalNudge(REST)})
    assert found.of("EP").error < 1e-4
    assert found.of("infinitesimal").error < 1e-6


def test_a_smooth_twin_keeps_the_clamped_nodes_and_the_substrate():
    _, held, _ = page()
    rust = section("A substrate").Rust
    twin = smooth(held.on(rust()))
    assert twin.clamped == held.clamped
    assert isinstance(twin.substrate, rust)
