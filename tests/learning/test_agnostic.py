"""Parameters that relax: where they come to rest, and the gradient that their displacement is."""

from itertools import pairwise

import pytest
import torch
from networks import NETWORKS, data, dense, gradients, relative

import eqprop as ep

pytestmark = pytest.mark.usefixtures("double")

FREE, SWEEPS = ep.UntilConverged(1e-14, 1000), ep.FixedSweeps(60)
STENCILS = {"optimistic": ep.one_sided(0.2), "pessimistic": ep.one_sided(-0.2), "centred": ep.symmetric(0.1)}


@pytest.mark.parametrize("stencil", STENCILS.values(), ids=STENCILS.keys())
@pytest.mark.parametrize("name", ["dense", "dense mse", "average", "skip"])
def test_it_tends_to_the_stencils_estimate(name, stencil):
    """Linearly in epsilon."""
    network = NETWORKS[name]()
    x, y = data(network)
    exact = gradients(network, ep.EquilibriumPropagation(stencil, FREE, SWEEPS, form=ep.learning.forms.states), x, y)
    big, small = (
        relative(gradients(network, ep.learning.AgnosticEP(stencil, FREE, SWEEPS, e), x, y), exact)
        for e in (4e-4, 2e-4)
    )
    assert small < 5e-3
    assert big / small == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("stencil", STENCILS.values(), ids=STENCILS.keys())
@pytest.mark.parametrize("name", ["dense", "dense mse"])
def test_gradient_descent_lands_where_the_knobs_hold_the_parameters_in_balance(name, stencil):
    """theta' + epsilon dF/dtheta(theta', s2) = u = theta + epsilon dF/dtheta(theta, s1), both states settled anew."""
    network, epsilon = NETWORKS[name](), 0.05
    x, y = data(network)
    low, high = sorted(stencil.betas)
    parameters = list(network.parameters())

    def knobs(beta):
        """theta + epsilon dF/dtheta, from energies alone."""
        scene, loss = network.landscape(x), network.loss
        nudged = scene.with_term("nudge", ep.energy.losses.Nudge(loss, y, torch.full((5,), beta)))
        with torch.no_grad():
            state = FREE(nudged, scene.zeros()).state
        energy = scene.energy(state) + beta * loss(y, *(state[node] for node in loss.nodes))
        slopes = torch.autograd.grad(energy.mean(), parameters)
        return torch.cat([(p + epsilon * s).detach().flatten() for p, s in zip(parameters, slopes, strict=True)])

    before = knobs(low)
    ep.Equilibrium(network, ep.learning.AgnosticEP(stencil, FREE, ep.FixedSweeps(200), epsilon)).loss(x, y).backward()
    start = torch.cat([p.detach().flatten() for p in parameters])
    torch.optim.SGD(parameters, lr=epsilon * (high - low)).step()
    moved = torch.cat([p.detach().flatten() for p in parameters]) - start
    assert float((knobs(high) - before).norm() / moved.norm()) < 1e-9


def test_optimistically_it_is_continual_equilibrium_propagation():
    """Where the energy is linear in the parameters, the sum of the sweeps' differences is that of the two ends."""
    network = dense(loss=ep.SquaredError)
    x, y = data(network)
    agnostic = ep.learning.AgnosticEP(ep.one_sided(0.2), FREE, ep.FixedSweeps(7), 0.1)
    continual = ep.learning.ContinualEP(ep.one_sided(0.2), FREE, ep.FixedSweeps(7), 0.1 * 0.2)
    assert relative(gradients(network, agnostic, x, y), gradients(network, continual, x, y)) < 1e-12


@pytest.mark.parametrize("stencil", STENCILS.values(), ids=STENCILS.keys())
def test_at_an_epsilon_that_trains_it_descends(stencil):
    network, epsilon = dense(loss=ep.SquaredError), 0.1
    x, y = data(network)
    exact = gradients(network, ep.ImplicitDifferentiation(FREE), x, y)
    model = ep.Equilibrium(
        network, ep.learning.AgnosticEP(stencil, ep.UntilConverged(1e-8, 400), ep.FixedSweeps(12), epsilon)
    )
    found = gradients(network, model.estimator, x, y)
    assert float(torch.nn.functional.cosine_similarity(found, exact, 0)) > 0.9
    optimiser, losses = torch.optim.SGD(network.parameters(), lr=0.2 * epsilon), []
    for _ in range(15):
        optimiser.zero_grad()
        loss = model.loss(x, y)
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.9 * losses[0]
    assert all(b < a for a, b in pairwise(losses))


def test_weights_data_and_a_loss_downstream_go_through_it():
    network = dense(loss=ep.SquaredError)
    x, y = torch.randn(5, 6, requires_grad=True), torch.arange(5) % 4
    weight, found, stencil = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0]), [], ep.symmetric(0.1)
    for estimator in (
        ep.EquilibriumPropagation(stencil, FREE, SWEEPS, form=ep.learning.forms.states),
        ep.learning.AgnosticEP(stencil, FREE, SWEEPS, 1e-6),
    ):
        model = ep.Equilibrium(network, estimator)
        loss = model.loss(x, y, weight) + torch.nn.functional.cross_entropy(model(x), y)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [x, *network.parameters()])]))
    assert relative(found[1], found[0]) < 1e-4


def test_parameters_are_put_back_and_the_phases_recorded():
    network, record = dense(), ep.Record()
    x, y = data(network)
    before = [(p.data_ptr(), p.detach().clone()) for p in network.parameters()]
    for stencil, phases in ((ep.one_sided(0.2), 1), (ep.symmetric(0.1), 2)):
        estimator = ep.learning.AgnosticEP(stencil, FREE, ep.FixedSweeps(6), 0.1)
        ep.Equilibrium(network, estimator).loss(x, y, record=record).backward()
        assert record.nudged.sweeps.tolist() == [6] * 5 * phases
    for parameter, (place, bits) in zip(network.parameters(), before, strict=True):
        assert parameter.data_ptr() == place
        assert torch.equal(parameter, bits)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ep.InputError, match="two phases of real nudges"):
        ep.learning.AgnosticEP(ep.learning.five_point(0.1), FREE, SWEEPS, 0.1)
    with pytest.raises(ep.InputError, match="two phases of real nudges"):
        ep.learning.AgnosticEP(ep.learning.holomorphic(0.1, 3), FREE, SWEEPS, 0.1)
    with pytest.raises(ep.InputError, match="epsilon 0"):
        ep.learning.AgnosticEP(ep.symmetric(0.1), FREE, SWEEPS, 0.0)
    layers = [ep.DenseLayer(4, ep.tanh), ep.DenseLayer(4, ep.tanh)]
    for without_energy in ({"separate_feedback": True}, {"feedback_gain": 0.5}):
        network = ep.chain((6,), layers, ep.SquaredError, **without_energy)
        with pytest.raises(ep.InputError, match="no energy"):
            gradients(network, ep.learning.AgnosticEP(ep.symmetric(0.1), FREE, SWEEPS, 0.1), *data(network))
