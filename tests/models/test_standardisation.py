"""Weights of mean 0 and unit drive, as functions of free parameters, inside an energy."""

from functools import partial

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize

import eqprop as ep
from eqprop.models import ScaledStandardisation, scale_weights, standardise_weights

pytestmark = pytest.mark.usefixtures("double")


def network(gain=1.0):
    torch.manual_seed(0)
    layers = [ep.ConvLayer(6, activation=ep.tanh), ep.ConvLayer(5, pool=None, activation=ep.tanh), ep.DenseLayer(7)]
    return ep.chain((2, 8, 8), layers, partial(ep.ReadoutCrossEntropy, classes=4), feedback_gain=gain)


def standardised(gain=1.0):
    made = network(gain)
    standardise_weights(made)
    return made


def weights(made):
    return [each.map.weight for each in made.terms.values() if isinstance(each, ep.Synapse)]


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3)])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_each_outputs_weights_have_mean_0_and_the_length_of_the_gain(shape, size):
    v = size * (torch.randn(shape) + 5)
    made = ScaledStandardisation(v)
    with torch.no_grad():
        made.gain.copy_(torch.rand_like(made.gain) + 0.5)
        weight = made(v).flatten(1)
    torch.testing.assert_close(weight.mean(1), torch.zeros(shape[0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(weight.norm(dim=1), made.gain.detach().flatten())


def test_an_output_of_equal_weights_is_silent_and_has_a_finite_gradient():
    v = torch.ones(2, 3, requires_grad=True)
    made = ScaledStandardisation(v)(v)
    (gradient,) = torch.autograd.grad(made.sum(), v)
    assert bool(made.eq(0).all())
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_the_estimate_is_the_gradient_by_the_free_parameters(gain):
    made = standardised(gain)
    names = [name for name, _ in made.named_parameters()]
    assert sum("original" in name for name in names) == sum(name.endswith("0.gain") for name in names) == 3
    x, y = torch.randn(6, 2, 8, 8), torch.arange(6) % 4
    free = ep.UntilConverged(1e-12, 400)
    found = {}
    for estimator in (ep.InfinitesimalNudge(free, free, damping=0.0), ep.ImplicitDifferentiation(free)):
        loss = ep.Equilibrium(made, estimator).loss(x, y)
        found[type(estimator)] = torch.autograd.grad(loss, list(made.parameters()))
    for name, one, other in zip(names, *found.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-10, msg=name)


def test_the_scale_of_what_it_is_computed_from_changes_nothing():
    made = standardised()
    before = [each.detach().clone() for each in weights(made)]
    with torch.no_grad():
        for name, each in made.named_parameters():
            if "original" in name:
                each.mul_(7)
    for one, other in zip(before, weights(made), strict=True):
        torch.testing.assert_close(one, other)


def test_weights_are_scaled_by_their_gains():
    made, plain = standardised(), standardised()
    for each in plain.terms.values():
        if isinstance(each, ep.Synapse):
            parametrize.remove_parametrizations(each.map, "weight")
    before = [each.detach().clone() for each in weights(plain)]
    x = torch.randn(50, 2, 8, 8)
    for each in (made, plain):
        scale_weights(each, x, 0.5)
    for one, other, first in zip(weights(made), weights(plain), before, strict=True):
        torch.testing.assert_close(one, other)
        assert not torch.allclose(one, first)


def test_weights_that_lose_a_factor_are_not_scaled_in_silence():
    made = network()
    parametrizations.spectral_norm(made.couplings["layer1_layer2"].map)
    made.eval()
    with pytest.raises(ep.InputError, match="'layer2' are computed from others"):
        scale_weights(made, torch.randn(50, 2, 8, 8), 0.5)


def test_what_it_cannot_standardise_is_refused():
    made = standardised()
    with pytest.raises(ep.InputError, match="already"):
        standardise_weights(made)
    nodes = {"input": (4,), "a": ep.Node((4,), ep.tanh)}
    with pytest.raises(ep.InputError, match="nothing to standardise"):
        standardise_weights(ep.graph(nodes, [("input", "a")]))
