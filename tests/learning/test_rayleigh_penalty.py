"""The penalty on slow settling: what it measures, what it descends, and what becomes of a network."""

import pytest
import torch
from networks import NETWORKS, data, gradients, shrunk
from penalties import Nothing, jacobian, nudging
from torch.autograd import grad

import eqprop as ep
from eqprop.learning.penalties import last_change
from eqprop.settling.displacement import tangent


def network(gain=1.0, activation=ep.tanh, **more):
    torch.manual_seed(0)
    layers = [ep.DenseLayer(n, activation) for n in (6, 5, 4)]
    return shrunk(ep.chain((3,), layers, ep.SquaredError, **more), gain).double()


def at_rest(taught, batch=3):
    torch.manual_seed(1)
    x = torch.randn(batch, 3, dtype=torch.float64)
    with torch.no_grad():
        scene = taught.landscape(x)
        return x, scene, ep.FixedSweeps(20)(scene, scene.zeros()).state


def test_it_is_the_rayleigh_quotient_of_the_sweep():
    taught = network(1.5)
    x, scene, state = at_rest(taught, 1)
    whole, slopes = jacobian(taught, x, state)
    linear = tangent(scene, state, {})
    for _ in range(3):
        v = {n: torch.randn_like(value) for n, value in state.items()}
        flat = torch.cat([value.flatten() for value in v.values()])
        expected = (flat @ whole @ flat) / (flat.square() / slopes).sum()
        torch.testing.assert_close(ep.learning.rayleigh_quotient(linear, v), expected.detach().view(1))


def test_a_term_named_like_its_node_counts_as_a_term():
    """A coupling of one node has its node's name."""
    torch.manual_seed(0)
    nodes = {"x": ep.Node((3,)), "a": ep.Node((4,), ep.tanh), "b": ep.Node((4,), ep.tanh)}
    terms = [ep.Synapse(pre, post, ep.Dense(nodes[pre].shape, (4,))) for pre, post in (("x", "a"), ("a", "b"))]
    taught = ep.Network(nodes, [*terms, Repulsion("a")]).double()
    scene = taught.landscape(torch.randn(2, 3, dtype=torch.float64))
    with torch.no_grad():
        state = ep.FixedSweeps(50)(scene, scene.zeros()).state
        linear = tangent(scene, state, {})
        change = {name: torch.randn_like(value) for name, value in state.items()}
        pushed = linear.inner(change, {name: linear.drive(change, name) for name in change})
        own = torch.stack(list(linear.node_energies(change).values())).sum(0)
        torch.testing.assert_close(ep.learning.rayleigh_quotient(linear, change), pushed / (2 * own))
        parts = [*scene.node_energies(state).values(), *scene.term_energies(state).values()]
    assert len(parts) == 5
    torch.testing.assert_close(scene.energy(state), torch.stack(parts).sum(0))


class Repulsion(ep.Coupling):
    def __init__(self, node):
        super().__init__()
        self.nodes = (node,)

    def energy(self, *states):
        return 0.1 * (states[0].sum(1).square() - states[0].square().sum(1))


def test_along_the_slowest_mode_it_is_the_square_root_of_how_a_sweep_contracts():
    taught = network(1.5)
    _, scene, state = at_rest(taught)
    rest = ep.UntilConverged(1e-14, 2000)(scene, state).state
    with torch.no_grad():
        near = {n: value + 1e-3 * torch.randn_like(value) for n, value in rest.items()}
        near = ep.FixedSweeps(8)(scene, near).state
        after, change = last_change(scene, near)
        _, further = last_change(scene, after)
        contracted = [torch.cat([v.flatten(1) for v in c.values()], 1).norm(dim=1) for c in (change, further)]
        found = ep.learning.rayleigh_quotient(tangent(scene, rest, {}), further)
    torch.testing.assert_close(found, (contracted[1] / contracted[0]).pow(0.25), rtol=0.05, atol=0)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_its_gradient_is_that_of_slowness_with_state_and_change_held(share):
    taught = network(1.5)
    torch.manual_seed(2)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % 4
    strength = 0.7
    found = gradients(taught, ep.learning.RayleighPenalty(Nothing(), strength, share), x, y)

    asked = x[: int(share * 6)]
    scene = taught.landscape(asked)
    with torch.no_grad():
        free = Nothing()(scene)[0].state
        state, change = last_change(scene, free)
        slopes = {n: node.unit.slope for n, node in tangent(scene, state, {}).nodes.items()}
    coupled = 0
    for a, b in (("layer1", "layer2"), ("layer2", "layer3")):
        coupled = coupled + 2 * (taught.terms[f"{a}_{b}"].map(change[a]) * change[b]).sum(1)
    own = sum((change[n].square() / slopes[n]).sum(1) for n in change)
    penalty = strength * (coupled / own).clamp_min(0).square().mean()
    expected = [
        g if g is not None else torch.zeros_like(p)
        for p, g in zip(taught.parameters(), grad(penalty, list(taught.parameters()), allow_unused=True), strict=True)
    ]
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]))
    assert float(found.abs().max()) > 1e-3


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_is_added_to_the_other_estimators_gradient_on_every_network_with_an_energy(kind):
    taught = shrunk(NETWORKS[kind](), 1.0)
    x, y = data(taught)
    estimator = nudging(ep.symmetric(0.1))
    if not all(term.symmetric for term in taught.terms.values()):
        with pytest.raises(ep.InputError, match="no energy"):
            gradients(taught, ep.learning.RayleighPenalty(estimator, 1.0), x, y)
        return
    plain, same, more = (
        gradients(taught, e, x, y) for e in (estimator, *(ep.learning.RayleighPenalty(estimator, s) for s in (0, 1.0)))
    )
    assert torch.equal(plain, same)
    assert more.isfinite().all()


def test_a_network_that_is_asked_to_stays_quick_to_settle():
    x, y = torch.randn(16, 3, dtype=torch.float64), torch.arange(16) % 4

    def sweeps(strength):
        taught = network(3.0)
        model = ep.Equilibrium(taught, ep.learning.RayleighPenalty(nudging(ep.symmetric(0.1)), strength, 1.0))
        optimiser = torch.optim.SGD(taught.parameters(), lr=0.1)
        for _ in range(60):
            optimiser.zero_grad()
            model.loss(x, y).backward()
            optimiser.step()
        with torch.no_grad():
            scene = taught.landscape(x)
            return float(ep.UntilConverged(1e-8, 2000)(scene, scene.zeros()).sweeps.double().mean())

    assert sweeps(3.0) < 0.75 * sweeps(0.0)


def test_data_get_no_share_of_it():
    taught = network()
    x, y = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), torch.arange(4)
    plain = nudging(ep.symmetric(0.1))
    found = [
        grad(ep.Equilibrium(taught, e).loss(x, y), [x, *taught.parameters()])
        for e in (plain, ep.learning.RayleighPenalty(plain, 1.0))
    ]
    assert torch.equal(found[0][0], found[1][0])
    assert not all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_one_node_alone_is_not_slow():
    alone = ep.chain((3,), [ep.DenseLayer(2, ep.tanh)], ep.SquaredError)
    x, y = torch.randn(4, 3), torch.arange(4) % 2
    plain = nudging(ep.symmetric(0.1))
    assert torch.equal(gradients(alone, ep.learning.RayleighPenalty(plain, 1.0), x, y), gradients(alone, plain, x, y))


@pytest.mark.parametrize(("strength", "share"), [(-1.0, 0.5), (float("nan"), 0.5), (1.0, 0.0), (1.0, 1.5)])
def test_what_cannot_be(strength, share):
    with pytest.raises(ep.InputError, match=r"share|strength"):
        ep.learning.RayleighPenalty(Nothing(), strength, share)


def penalty_alone(taught, free, x, y):
    plain = ep.InfinitesimalNudge(free, ep.FixedSweeps(50))
    return gradients(taught, ep.learning.RayleighPenalty(plain, 1.0, 1.0), x, y) - gradients(taught, plain, x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_at_rest_is_no_slow_mode(dtype):
    taught, (x, y) = network(1.5).to(dtype), (torch.randn(6, 3, dtype=dtype), torch.arange(6) % 4)
    assert float(penalty_alone(taught, ep.FixedSweeps(3), x, y).abs().max()) > 1e-3
    assert float(penalty_alone(taught, ep.FixedSweeps(2000), x, y).abs().max()) == 0


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_32_bits_measure_what_64_do(tolerance):
    taught, (x, y) = network(1.5), (torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % 4)
    free = ep.UntilConverged(tolerance, 500)
    exact = penalty_alone(taught, free, x, y)
    found = penalty_alone(taught.float(), free, x.float(), y)
    assert float((found.double() - exact).norm() / exact.norm()) < 0.05


def test_16_bit_messages_at_rest_add_nothing():
    taught, (x, y) = network(1.5).float(), (torch.randn(6, 3), torch.arange(6) % 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(penalty_alone(taught, ep.FixedSweeps(2), x, y).abs().max()) > 1e-3
        assert float(penalty_alone(taught, ep.FixedSweeps(300), x, y).abs().max()) == 0
