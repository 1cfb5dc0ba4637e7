"""How bias falls with beta, and which beta is best where states are read with noise."""

import math
from functools import cache, partial

import numpy as np
import pytest
import torch

import eqprop as ep
from eqprop import diagnostics, substrates as s
from eqprop.diagnostics.bias import noise_curve, power_law
from eqprop.diagnostics.gradients import as_vector, estimate

FAR = ep.UntilConverged(1e-13, 3000)
NEAR = ep.UntilConverged(1e-9, 3000)
"""Far below the noise of the reads here."""
FAMILIES = {"one-sided": (ep.one_sided, 1), "symmetric": (ep.symmetric, 2), "five-point": (ep.learning.five_point, 4)}


def small(seed=0):
    """Dense 10-20-20-5, tanh below a linear output, squared error, weights scaled by fan-in; and a batch of 8."""
    torch.manual_seed(seed)
    layers = [ep.DenseLayer(20, ep.tanh), ep.DenseLayer(20, ep.tanh), ep.DenseLayer(5, ep.identity)]
    network = ep.chain((10,), layers, ep.SquaredError).double()
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.35 / math.sqrt(parameter.shape[1]) if parameter.ndim == 2 else 0.1
            parameter.normal_(0, scale)
    return network, torch.randn(8, 10, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)


def family(stencil, solver=FAR):
    return lambda beta: ep.EquilibriumPropagation(stencil(beta), solver, solver)


@cache
def suggested(name, machine=None, read_noise=0.0, reads=1):
    """For the small network, on a machine or the ideal one."""
    network, x, y = small()
    network = network if machine is None else network.on(machine)
    return diagnostics.suggest_beta(network, x, y, family(FAMILIES[name][0], NEAR), read_noise, reads)


@pytest.mark.parametrize(("stencil", "order"), FAMILIES.values(), ids=FAMILIES.keys())
def test_the_fitted_order_is_the_stencils(stencil, order):
    network, x, y = small()
    found = diagnostics.bias_curve(network, x, y, family(stencil), [0.01 * 2**k for k in range(6)])
    assert found.order == pytest.approx(order, abs=0.15)
    assert len(found.fitted) >= 2
    assert found.betas == tuple(sorted(found.betas))
    beta = found.fitted[-1]
    error = found.errors[found.betas.index(beta)]
    assert found.constant * beta**found.order == pytest.approx(error, rel=0.2)


def test_the_fit_takes_what_it_says():
    betas = (1, 2, 4, 8, 16)
    found = power_law(betas, (1e-10, 0.001, 0.012, 0.024, 0.2), (0.01, 0.1))  # two that count between others
    assert found.fitted == (4, 8)
    assert found.order == pytest.approx(1)
    assert found.constant == pytest.approx(0.003)
    assert math.isnan(power_law(betas, (0.5,) * 5).order)
    assert power_law(betas, (0.0, 1e-10, 1e-8, 0.1, 0.2)).fitted == (4, 8)


@pytest.mark.parametrize("betas", [[0.1], [0.1, 0.1], [0.0, 0.1], [-0.1, 0.1]])
def test_a_curve_wants_betas(betas):
    with pytest.raises(ep.InputError, match="at least two different ones, all positive"):
        diagnostics.bias_curve(*small(), family(ep.symmetric), betas)


def test_the_smooth_twin_has_the_orders_that_the_network_lacks():
    torch.manual_seed(0)
    layers = [ep.ConvLayer(4, activation=ep.hard_sigmoid), ep.ConvLayer(4, pool=None), ep.DenseLayer(5)]
    network = ep.chain((1, 6, 6), layers, partial(ep.ReadoutCrossEntropy, classes=3))
    twin = diagnostics.smooth(network)
    assert [node.unit for node in twin.free.values()] == [ep.sigmoid, ep.energy.half_sigmoid, ep.energy.half_sigmoid]
    assert twin.couplings["input_layer1"].map.pool == ep.energy.SoftPool(2)
    assert network.couplings["input_layer1"].map.pool == ep.MaxPool(2)
    for name, value in network.state_dict().items():
        assert torch.equal(twin.state_dict()[name], value)
        assert twin.state_dict()[name].data_ptr() != value.data_ptr()
    x, y = torch.randn(6, 1, 6, 6), torch.arange(6) % 3
    betas = (0.05, 0.1, 0.2, 0.4)
    smooth, sharp = (diagnostics.bias_curve(each, x, y, family(ep.symmetric), betas) for each in (twin, network))
    assert smooth.order == pytest.approx(2, abs=0.1)
    assert sharp.errors[-1] < 4 * sharp.errors[1]  # 16 times is what order 2 would make of it
    assert sharp.errors[1] > 50 * smooth.errors[1]


def test_a_soft_pool_above_a_free_node_is_no_longer_bilinear():
    layers = [ep.ConvLayer(2, pool=None), ep.ConvLayer(3)]
    network = ep.chain((1, 4, 4), layers, partial(ep.ReadoutCrossEntropy, classes=3))
    x = torch.randn(2, 1, 4, 4)
    assert network.landscape(x).bilinear
    assert not diagnostics.smooth(network).landscape(x).bilinear


def test_what_has_no_smooth_twin_says_so():
    with pytest.raises(ep.InputError, match="no smooth counterpart"):
        diagnostics.smooth(ep.chain((3,), [ep.DenseLayer(2, ep.energy.centred_hard_sigmoid)]))
    with pytest.raises(ep.InputError, match="windows that touch"):
        diagnostics.smooth(ep.chain((1, 6, 6), [ep.ConvLayer(2, pool=ep.MaxPool(3, 2))]))


@pytest.mark.parametrize("name", ["one-sided", "symmetric"])
def test_the_suggestion_follows_the_noise_at_its_power(name):
    """beta* is proportional to (read_noise / sqrt(reads))^(1 / (order + 1)), the error there to the rest of it."""
    order = FAMILIES[name][1]
    noises = (1e-5, 1e-3)
    found = [suggested(name, read_noise=noise) for noise in noises]
    slope = np.polyfit(np.log(noises), np.log([each.beta for each in found]), 1)[0]
    assert slope == pytest.approx(1 / (order + 1), abs=0.05)
    slope = np.polyfit(np.log(noises), np.log([each.error for each in found]), 1)[0]
    assert slope == pytest.approx(order / (order + 1), abs=0.05)
    assert suggested(name, read_noise=1e-3, reads=10_000).beta == pytest.approx(found[0].beta, rel=0.05)
    assert found[0].error == pytest.approx(found[0].bias(found[0].beta) + found[0].noise(found[0].beta))


@pytest.mark.parametrize("name", ["one-sided", "symmetric"])
@pytest.mark.parametrize("read_noise", [1e-4, 1e-3])
def test_the_suggested_beta_is_nearly_the_best_of_a_grid(name, read_noise):
    network, x, y = small()
    stencil, _ = FAMILIES[name]
    suggestion = suggested(name, read_noise=read_noise)
    betas = [suggestion.beta, *np.geomspace(5e-3, 0.6, 8)]
    exact = as_vector(estimate(network, ep.ImplicitDifferentiation(FAR), x, y).gradients)
    errors = []
    torch.manual_seed(5)
    for beta in betas:
        noisy = ep.EquilibriumPropagation(stencil(beta), NEAR, NEAR, ep.learning.Noisy(ep.contrastive, read_noise))
        runs = [as_vector(estimate(network, noisy, x, y).gradients) - exact for _ in range(3)]
        errors.append(math.sqrt(sum(float(run.square().sum()) for run in runs) / 3) / float(exact.norm()))
    assert errors[0] < 1.5 * min(errors)
    assert errors[0] < 1.5 * suggestion.error


def test_noise_is_measured_as_the_model_says():
    network, x, y = small()
    suggestion = suggested("symmetric", read_noise=1e-4)
    for beta, noise in noise_curve(network, x, y, family(ep.symmetric, NEAR), (0.02, 0.1), 1e-4, 1):
        assert noise == pytest.approx(suggestion.noise(beta), rel=0.1)
    exact = as_vector(estimate(network, ep.ImplicitDifferentiation(FAR), x, y).gradients)
    found = as_vector(estimate(network, family(ep.symmetric)(0.05), x, y).gradients)
    assert float((found - exact).norm() / exact.norm()) == pytest.approx(suggestion.bias(0.05), rel=0.1)


def test_what_cannot_be_suggested_is_refused():
    network, x, y = small()
    with pytest.raises(ep.InputError, match="without noise the smallest beta is best"):
        diagnostics.suggest_beta(network, x, y, family(ep.symmetric), 0.0)
    with pytest.raises(ep.InputError, match="must be finite and not negative"):
        diagnostics.suggest_beta(network.on(s.ReadNoise(1e-3)), x, y, family(ep.symmetric), -1.0)
    with pytest.raises(ep.InputError, match="is no function"):
        diagnostics.suggest_beta(network, x, y, 1e-3, 1)
    with pytest.raises(ep.InputError, match="two different positive betas"):
        diagnostics.suggest_beta(network, x, y, family(ep.symmetric), 1e-3, probes=(0.1, 0.1))
    with pytest.raises(ep.InputError, match="not an EquilibriumPropagation"):
        diagnostics.suggest_beta(network, x, y, lambda beta: ep.InfinitesimalNudge(FAR), 1e-3)
    with pytest.raises(ep.InputError, match="no bias to weigh"):
        diagnostics.suggest_beta(network, x, y, lambda beta: family(ep.symmetric)(0.1), 1e-3)


# -- on a machine, whose own noise is measured --


@pytest.mark.parametrize("name", ["one-sided", "symmetric"])
@pytest.mark.parametrize("noise", [s.ReadNoise, s.WeightNoise], ids=["reads", "weights"])
def test_the_suggestion_for_a_machine_follows_its_noise_at_its_power(name, noise):
    order = FAMILIES[name][1]
    sizes = (1e-5, 1e-3)
    found = [suggested(name, noise(size)) for size in sizes]
    for values, power in (([f.beta for f in found], 1), ([f.error for f in found], order)):
        slope = np.polyfit(np.log(sizes), np.log(values), 1)[0]
        assert slope == pytest.approx(power / (order + 1), abs=0.05)


@pytest.mark.parametrize("name", ["one-sided", "symmetric"])
def test_a_machine_that_reads_with_noise_gives_what_the_number_gives(name):
    right, own = suggested(name, read_noise=1e-3, reads=4), suggested(name, s.ReadNoise(1e-3, 4))
    assert own.noise_constant == pytest.approx(right.noise_constant, rel=0.1)
    assert (own.order, own.bias_constant) == (right.order, right.bias_constant)
    both = suggested(name, s.ReadNoise(1e-3, 4), 1e-3, 4)
    assert both.noise_constant == pytest.approx(math.sqrt(2) * right.noise_constant, rel=0.1)


def test_the_bias_is_that_against_the_gradient_of_the_machine():
    """A fixed fault is none: on a spread machine beta is as good as on another network, and its noise is measured."""
    machine = s.Together(s.WeightSpread(0.3), s.ReadSpread(0.1, 0.1), s.ReadNoise(1e-4))
    found, spread = suggested("symmetric", machine), suggested("symmetric", s.WeightSpread(0.3), 1e-4)
    assert found.bias_constant == spread.bias_constant
    assert found.noise_constant == pytest.approx(spread.noise_constant, rel=0.3), "the reader has gains of 10 %"


def test_a_machine_without_noise_that_beta_divides_is_refused():
    network, x, y = small()
    for fault in (s.WeightSpread(0.1), s.Droop(0.01), s.TwoCircuits(s.ReadSpread(0.1), s.ReadSpread(0.1, seed=1))):
        with pytest.raises(ep.InputError, match=r"draws nothing anew.*eqprop check --substrate"):
            diagnostics.suggest_beta(network.on(fault), x, y, family(ep.symmetric, NEAR))
    with pytest.raises(ep.InputError, match="the same at every beta; smaller steps"):
        diagnostics.suggest_beta(network.on(s.WriteNoise(0.01)), x, y, family(ep.symmetric, NEAR))


def test_it_changes_neither_the_machine_nor_its_draws():
    network, x, y = small()
    machine = s.ReadNoise(1e-3)
    network, before = network.on(machine), machine.generator.get_state()
    one, two = (diagnostics.suggest_beta(network, x, y, family(ep.symmetric, NEAR)) for _ in range(2))
    assert one == two
    assert torch.equal(machine.generator.get_state(), before)
