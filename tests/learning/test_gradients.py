"""Estimators against exact gradients, and the two exact gradients against each other, in float64."""

import math

import pytest
import torch
from networks import NETWORKS, SETTLE, conv, data, dense, gradients, nudging, readout, relative, shrunk
from torch.nn import functional as F

import eqprop as ep

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def network(request):
    return request.param()


def test_the_two_exact_gradients_agree(network):
    x, y = data(network)
    implicit = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    unrolled = gradients(network, ep.BackpropagationThroughTime(SETTLE, 60), x, y)
    assert relative(unrolled, implicit) < 1e-8


def test_the_exact_gradient_is_that_of_the_settled_loss(network):
    """Finite differences of the loss that is evaluated, along a random direction."""
    x, y = data(network)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    model = ep.Equilibrium(network, nudging(ep.symmetric(0.1)))
    parameters, step = list(network.parameters()), 1e-5
    direction = torch.randn_like(exact)
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            at = torch.nn.utils.parameters_to_vector(parameters)
            torch.nn.utils.vector_to_parameters(at + sign * step * direction, parameters)
            values.append(model.loss(x, y))
            torch.nn.utils.vector_to_parameters(at, parameters)
    slope = (values[0] - values[1]) / (2 * step)
    assert float(slope) == pytest.approx(float(exact @ direction), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(("stencil", "order"), [(ep.one_sided, 1), (ep.symmetric, 2), (ep.learning.five_point, 4)])
@pytest.mark.parametrize("make", [dense, lambda: dense(loss=ep.SquaredError), lambda: conv(ep.energy.SoftPool(2))])
def test_bias_falls_at_the_order_of_the_stencil(make, stencil, order):
    network = make()
    x, y = data(network)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    big, small = (relative(gradients(network, nudging(stencil(b)), x, y), exact) for b in (0.1, 0.05))
    assert stencil(0.1).order == order
    assert math.log2(big / small) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("make", [lambda: dense(separate=True), lambda: conv(ep.AveragePool(2), separate=True), dense])
def test_the_vector_field_rule_follows_the_forward_gradient(make):
    """With or without energy, -<d drive/d theta, ds/dbeta> is exact when feedback is the transpose."""
    network = make()
    for term in network.terms.values():
        for _, up, down in term.pairs() if isinstance(term, ep.energy.SeparateFeedback) else ():
            down.data.copy_(up.data)
    x, y = data(network)
    found = gradients(network, nudging(ep.symmetric(1e-3), ep.vector_field), x, y)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    assert relative(found, exact) < 1e-4


def test_kolen_pollack_gives_both_weights_the_mean_of_their_estimates():
    layers = [ep.ConvLayer(3, pool=None, activation=ep.tanh), ep.ConvLayer(4, activation=ep.tanh)]
    network = shrunk(ep.chain((2, 6, 6), layers, readout, separate_feedback=True))
    x, y = data(network)
    names = [n for n, _ in network.named_parameters()]

    def by_name(rule):
        model = ep.Equilibrium(network, nudging(ep.symmetric(0.1), rule))
        return dict(zip(names, torch.autograd.grad(model.loss(x, y), list(network.parameters())), strict=True))

    tied, apart = by_name(ep.learning.kolen_pollack), by_name(ep.contrastive)
    ups = [n for n in names if "feedforward" in n]
    assert ups
    for up in ups:
        down = up.replace("feedforward", "feedback")
        torch.testing.assert_close(tied[up], tied[down], rtol=0, atol=0)
        torch.testing.assert_close(tied[up], (apart[up] + apart[down]) / 2)
        assert relative(apart[up], apart[down]) > 1e-12


@pytest.mark.parametrize(
    "form", [ep.learning.forms.displacements, ep.learning.forms.states], ids=["difference", "ordinary"]
)
def test_stacked_and_in_turn_are_the_same(network, form):
    x, y = data(network)
    together, apart = (
        gradients(network, nudging(ep.learning.five_point(0.1), form=form, stacked=stacked), x, y)
        for stacked in (True, False)
    )
    assert relative(apart, together) < 1e-12


@pytest.mark.parametrize("rule", [ep.contrastive, ep.vector_field, ep.learning.kolen_pollack])
def test_the_two_forms_agree(network, rule):
    """Where no pooling winner switches: the nudge is small enough for that here."""
    x, y = data(network)
    beta = 0.3 if not any("Max" in str(getattr(m, "pool", "")) for m in network.modules()) else 1e-4
    found = [
        gradients(network, nudging(ep.symmetric(beta), rule, form=f), x, y)
        for f in (ep.learning.forms.displacements, ep.learning.forms.states)
    ]
    assert relative(*found) < 1e-9


def test_the_difference_form_survives_nudges_that_drown_the_ordinary_one():
    """In float32, at beta 1e-6: the ordinary form subtracts states that are equal but for rounding."""
    network = conv(ep.MaxPool(2))
    x, y = data(network)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    network = network.float()
    errors = {
        form: relative(gradients(network, nudging(ep.one_sided(1e-6), form=form), x.float(), y).double(), exact)
        for form in (ep.learning.forms.displacements, ep.learning.forms.states)
    }
    assert errors[ep.learning.forms.displacements] < 1e-4
    assert errors[ep.learning.forms.states] > 1e-2


@pytest.mark.parametrize(
    ("form", "pool", "stands"),
    [
        (ep.learning.forms.displacements, ep.MaxPool(2), True),
        (ep.learning.forms.states, ep.MaxPool(2), False),
        (ep.learning.forms.displacements, ep.energy.SoftPool(2), False),
    ],
)
def test_16_bits_are_for_networks_that_the_difference_form_serves(form, pool, stands):
    """A soft pool between nodes leaves none, so that nudges settle in the ordinary form after all."""
    network = ep.chain((1, 6, 6), [ep.ConvLayer(2), ep.ConvLayer(3, pool=pool)], ep.SquaredError)
    estimator = nudging(ep.one_sided(0.01), form=form)
    assert estimator.sixteen_bits(network.landscape(torch.zeros(2, 1, 6, 6))) is stands
    assert (
        ep.learning.RayleighPenalty(estimator, 1.0).sixteen_bits(network.landscape(torch.zeros(2, 1, 6, 6))) is stands
    )


def test_per_example_weights_are_signed(network):
    x, y = data(network)
    exact = ep.ImplicitDifferentiation(SETTLE)
    weight = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    whole = sum(w * gradients(network, exact, x[i : i + 1], y[i : i + 1]) / 5 for i, w in enumerate(weight))
    assert relative(gradients(network, exact, x, y, weight), whole) < 1e-7
    assert relative(gradients(network, nudging(ep.symmetric(1e-4)), x, y, weight), whole) < (
        0.9 if any(isinstance(t, ep.energy.SeparateFeedback) for t in network.terms.values()) else 1e-4
    )


def test_gradients_do_not_depend_on_how_the_batch_is_cut(network):
    x, y = data(network, 4)
    estimator = nudging(ep.symmetric(0.1))
    halves = (gradients(network, estimator, x[:2], y[:2]) + gradients(network, estimator, x[2:], y[2:])) / 2
    assert relative(halves, gradients(network, estimator, x, y)) < 1e-9


@pytest.mark.parametrize("make", [dense, lambda: conv(ep.AveragePool(2))])
def test_a_block_inside_an_ordinary_model(make):
    """Any loss downstream, any module upstream; the data's gradient too."""
    network = make()
    shape = network.nodes[network.input].shape
    stem, head = torch.nn.Linear(3, math.prod(shape)), torch.nn.Linear(4, 3)
    raw, y = torch.randn(5, 3), torch.arange(5) % 3

    def run(estimator):
        model = ep.Equilibrium(network, estimator)
        x = stem(raw).view(-1, *shape)
        loss = F.cross_entropy(head(model(x)), y)
        parameters = [*stem.parameters(), *head.parameters(), *network.parameters()]
        return [g.flatten() for g in torch.autograd.grad(loss, parameters)]

    exact = torch.cat(run(ep.ImplicitDifferentiation(SETTLE)))
    unrolled = torch.cat(run(ep.BackpropagationThroughTime(SETTLE, 60)))
    assert relative(unrolled, exact) < 1e-8
    assert relative(torch.cat(run(nudging(ep.symmetric(1e-3)))), exact) < 1e-4


def test_the_loss_scales_and_accumulates_as_autograd_does():
    network = dense()
    x, y = data(network)
    model = ep.Equilibrium(network, nudging(ep.symmetric(0.1)))
    once = gradients(network, model.estimator, x, y)
    (3 * model.loss(x, y)).backward()
    model(x, y).backward()
    total = torch.cat([p.grad.flatten() for p in network.parameters()])
    assert relative(total, 4 * once) < 1e-12
    torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
    assert float(torch.cat([p.grad.flatten() for p in network.parameters()]).norm()) == pytest.approx(0.5, rel=1e-4)


def test_a_parameter_without_a_part_is_an_error():
    class Idle(ep.Bias):
        def __init__(self):
            super().__init__("layer1", (8,))
            self.unused = torch.nn.Parameter(torch.zeros(3))

        @property
        def name(self):
            return "idle"

    base = dense()
    terms = base.terms | {"idle": Idle()}
    network = ep.Network(base.nodes, terms, ep.ReadoutCrossEntropy("layer3", (4,), 4))
    model = ep.Equilibrium(network, nudging(ep.symmetric(0.1)))
    x, y = data(network)
    with pytest.raises(ep.InputError, match=r"\(3,\)"):
        model.loss(x, y).backward()
    network.couplings["idle"].unused.requires_grad_(False)
    model.loss(x, y).backward()


def test_an_unstable_equilibrium_is_reported():
    network = dense(loss=ep.SquaredError)
    for p in network.parameters():
        p.data.mul_(40)
    x, y = data(network)
    estimator = ep.ImplicitDifferentiation(ep.FixedSweeps(1), steps=50)
    with pytest.raises(ep.NotSettledError, match="settle the free phase further"):
        ep.Equilibrium(network, estimator).loss(x, y).backward()


def test_random_sign_is_a_fair_coin_of_its_own():
    coin = ep.learning.RandomSign(0.1, seed=4)
    again = ep.learning.RandomSign(0.1, seed=4)
    torch.manual_seed(9)
    signs = [coin.draw().betas[1] for _ in range(400)]
    torch.manual_seed(1)
    assert signs == [again.draw().betas[1] for _ in range(400)]
    assert 150 < sum(s > 0 for s in signs) < 250
    network = dense()
    x, y = data(network)
    up, down = (gradients(network, nudging(ep.one_sided(b)), x, y) for b in (0.1, -0.1))
    assert relative((up + down) / 2, gradients(network, nudging(ep.symmetric(0.1)), x, y)) < 1e-9


@pytest.mark.parametrize(("betas", "weights"), [((0.0, 0.1), (-5.0, 5.0)), ((0.1,), (10.0,)), ((0.1, 0.1), (5.0, 5.0))])
def test_a_table_that_is_no_derivative_is_refused(betas, weights):
    with pytest.raises(ep.InputError):
        ep.learning.Stencil(betas, weights)
