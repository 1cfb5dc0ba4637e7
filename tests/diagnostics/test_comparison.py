"""Comparisons say what is known of estimators that are exact, wrong on purpose, or broken; and leave no trace."""

import copy
import json
import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch

import eqprop as ep
from eqprop import diagnostics
from eqprop.diagnostics.switching import clipped_units, switched_windows

FAR = ep.UntilConverged(1e-13, 5000)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def network(activation=ep.tanh, pool=None, separate=False):
    layers = [ep.ConvLayer(2, pool=pool, activation=activation), ep.DenseLayer(4, activation)]
    return ep.chain((1, 4, 4), layers, partial(ep.ReadoutCrossEntropy, classes=3), separate).double()


def batch(count=5):
    return torch.randn(count, 1, 4, 4, dtype=torch.float64), torch.arange(count) % 3


def nudging(stencil, **more):
    return ep.EquilibriumPropagation(stencil, FAR, FAR, **more)


@dataclass(frozen=True)
class Changed(ep.Estimator):
    """Another estimator's gradients, changed."""

    estimator: ep.Estimator
    change: object

    def __call__(self, landscape):
        settled, learn = self.estimator(landscape)
        return settled, lambda cost, parameters: ep.learning.GradientEstimate(
            tuple(map(self.change, learn(cost, parameters).gradients))
        )


class Spoiling(ep.Estimator):
    """Fails between shaking the weights and putting them back."""

    def __call__(self, landscape):
        def learn(cost, parameters):
            for parameter in parameters:
                parameter.mul_(2)
            raise RuntimeError("half way")

        return FAR(landscape, landscape.zeros()), learn


def test_the_reference_agrees_with_itself():
    exact = ep.ImplicitDifferentiation(FAR)
    found = diagnostics.compare(
        network(), *batch(), {"exact": exact}, {"itself": exact, "default": diagnostics.implicit}
    )
    assert {row.reference for row in found.rows} == {"itself", "default"}
    for row in found.rows:
        assert row.cosine == pytest.approx(1, abs=1e-12)
        assert row.error < 1e-8
        assert row.norm_ratio == pytest.approx(1, abs=1e-8)
        assert row.wrong_signs == 0


def test_finite_differences_implicit_and_unrolled_gradients_agree():
    references = {
        "finite differences": diagnostics.FiniteDifferences(),
        "unrolled": ep.BackpropagationThroughTime(ep.FixedSweeps(300), 300),
    }
    found = diagnostics.compare(network(), *batch(), {"exact": ep.ImplicitDifferentiation(FAR)}, references)
    assert {row.reference for row in found.rows} == set(references)
    assert max(row.error for row in found.rows) < 1e-7


def test_the_reference_is_taken_at_the_estimators_own_equilibrium():
    """Of a network with two, an estimator that finds the other one is judged there."""
    net = bistable()
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    settle = {
        name: ep.UntilConverged(1e-13, 100, order)
        for name, order in (("a", ep.settling.forward_order), ("b", ep.settling.backward_order))
    }
    estimators = {
        name: ep.EquilibriumPropagation(ep.symmetric(1e-3), solver, solver) for name, solver in settle.items()
    }
    found = diagnostics.compare(net, x, y, estimators, {"own": diagnostics.implicit, "a's": estimators["a"]})
    own = {row.estimator: row.error for row in found.rows if (row.reference, row.parameter) == ("own", "all")}
    assert max(own.values()) < 1e-5
    other = next(r for r in found.rows if (r.estimator, r.reference, r.parameter) == ("b", "a's", "all"))
    assert other.error > 0.1


def bistable():
    """Two units that silence each other: (1, 0) and (0, 1) up to the soft corners."""
    nodes = {"x": ep.Node((1,)), "a": ep.Node((1,), ep.sigmoid), "b": ep.Node((1,), ep.sigmoid)}
    couplings = [ep.Synapse("x", "a", ep.Dense((1,), (1,))), ep.Synapse("a", "b", ep.Dense((1,), (1,)))]
    couplings += [ep.Bias(n, (1,)) for n in ("a", "b")]
    net = ep.Network(nodes, couplings, ep.SquaredError("b", (1,))).double()
    with torch.no_grad():
        net.couplings["x_a"].map.weight.fill_(1)
        net.couplings["a_b"].map.weight.fill_(-2)
        for n in ("a", "b"):
            net.couplings[f"{n}_bias"].bias.fill_(1.5)
    return net


def test_orders_show_as_errors():
    stencils = {"one-sided": ep.one_sided, "symmetric": ep.symmetric, "five-point": ep.learning.five_point}
    estimators = {f"{name} {beta}": nudging(make(beta)) for name, make in stencils.items() for beta in (0.2, 0.1)}
    found = diagnostics.compare(network(), *batch(), estimators)
    for name, make in stencils.items():
        gain = found.of(f"{name} 0.2").error / found.of(f"{name} 0.1").error
        assert math.log2(gain) == pytest.approx(make(0.1).order, abs=0.25)


@pytest.mark.parametrize("factor", [-1.0, -2.0, 0.5, 0.0])
def test_a_wrong_factor_is_seen_in_cosine_ratio_error_and_signs(factor):
    wrong = Changed(ep.ImplicitDifferentiation(FAR), lambda gradient: factor * gradient)
    row = diagnostics.compare(network(), *batch(), {"wrong": wrong}).of("wrong")
    assert row.cosine == pytest.approx((factor > 0) - (factor < 0), abs=1e-12)
    assert row.norm_ratio == pytest.approx(abs(factor), abs=1e-8)
    assert row.error == pytest.approx(abs(factor - 1), abs=1e-8)
    assert row.wrong_signs == (1.0 if factor < 0 else 0.0)


def test_one_wrong_tensor_is_the_worst():
    wrong = Changed(ep.ImplicitDifferentiation(FAR), lambda g: -g if g.shape == (4, 32) else g)
    found = diagnostics.compare(network(), *batch(), {"wrong": wrong, "right": ep.ImplicitDifferentiation(FAR)})
    assert found.worst() == found.worst("wrong") == found.of("wrong", "couplings.layer1_layer2.map.weight")
    assert found.worst("right").error < 1e-8
    with pytest.raises(ep.InputError, match="'other'"):
        found.worst("other")


def test_zeros_agree_with_zeros_and_are_never_wrong_signs():
    net = network()
    with torch.no_grad():
        net.loss.readout.weight.zero_()  # nothing but the read-out then learns
    exact = ep.ImplicitDifferentiation(FAR)
    found = diagnostics.compare(net, *batch(), {"exact": exact, "noise": Changed(exact, torch.ones_like)})
    name = "couplings.layer1_bias.bias"
    row, noise = found.of("exact", name), found.of("noise", name)
    assert (row.cosine, row.error, row.norm_ratio, row.wrong_signs) == (1, 0, 1, 0)
    assert (noise.cosine, noise.error, noise.norm_ratio, noise.wrong_signs) == (0, math.inf, math.inf, 0)
    rows = json.loads(json.dumps(found.as_dict(), allow_nan=False))["rows"]
    assert next(r for r in rows if (r["estimator"], r["parameter"]) == ("noise", name))["error"] is None


def test_failures_are_rows_and_the_others_go_on():
    exact = ep.ImplicitDifferentiation(FAR)
    estimators = {
        "raises": Changed(exact, lambda gradient: 1 / 0),
        "not finite": Changed(exact, lambda gradient: gradient * math.nan),
        "misshapen": Changed(exact, lambda gradient: gradient.sum()),
        "unsettled": ep.ImplicitDifferentiation(FAR, steps=1),
        "spoils weights": Spoiling(),
        "exact": exact,
    }
    found = diagnostics.compare(network(), *batch(), estimators)
    for name, words in {
        "raises": "ZeroDivisionError",
        "not finite": "not finite",
        "misshapen": "shapes",
        "unsettled": "NotSettledError",
        "spoils weights": "RuntimeError: half way",
    }.items():
        assert words in found.of(name).problem
        assert math.isnan(found.of(name).error)
        assert found.worst(name) == found.of(name)
    assert found.of("exact").error < 1e-8
    assert found.of("exact").problem == ""
    assert list(found.settling) == ["exact"]


def test_a_reference_that_fails_is_told_in_its_own_row():
    exact = ep.ImplicitDifferentiation(FAR)
    references = {
        "itself": exact,
        "infinite": Changed(exact, lambda gradient: gradient / 0),
        "partial": lambda network, *rest: {},
    }
    found = diagnostics.compare(network(), *batch(), {"exact": exact}, references)
    problems = {row.reference: row.problem for row in found.rows}
    assert problems["itself"] == ""
    assert "reference is not finite" in problems["infinite"]
    assert "no gradient for" in problems["partial"]


def test_a_network_without_rest_has_no_exact_gradient():
    nodes = {"x": ep.Node((1,)), "a": ep.Node((1,), ep.identity), "b": ep.Node((1,), ep.identity)}
    net = ep.Network(
        nodes,
        [ep.Synapse("x", "a", ep.Dense((1,), (1,))), ep.Synapse("a", "b", ep.Dense((1,), (1,)))],
        ep.SquaredError("b", (1,)),
    )
    with torch.no_grad():
        net.couplings["a_b"].map.weight.fill_(1.5)  # runs away, slowly
    few = ep.FixedSweeps(3)
    found = diagnostics.compare(
        net, torch.ones(1, 1), torch.ones(1, 1), {"ep": ep.EquilibriumPropagation(ep.symmetric(0.1), few, few)}
    )
    assert "NotSettledError" in found.of("ep").problem


def test_no_trace_is_left():
    net = network(pool=ep.MaxPool(2)).float().train()
    net.couplings["layer1_bias"].eval()
    x, y = (t.float() if t.is_floating_point() else t for t in batch())
    coin = ep.learning.RandomSign(0.1)
    short = ep.FixedSweeps(20)
    noisy = ep.EquilibriumPropagation(coin, short, short, ep.learning.Noisy(ep.contrastive, 0.01))
    estimators = {
        "noisy": noisy,
        "exact": ep.ImplicitDifferentiation(short),
        "bptt": ep.BackpropagationThroughTime(short, 5),
    }
    before = copy.deepcopy(net.state_dict())
    states = torch.get_rng_state(), coin.generator.get_state()
    modes = [module.training for module in net.modules()]
    found = diagnostics.compare(net, x, y, estimators, {"fd": diagnostics.FiniteDifferences(), "coin": noisy})
    diagnostics.equilibria(net, x)
    diagnostics.through_time(net, x, y, 0.1, sweeps=3, free=10)
    make = lambda beta: ep.EquilibriumPropagation(ep.symmetric(beta), short, short)  # noqa: E731
    diagnostics.bias_curve(net, x, y, make, (0.1, 0.2))
    diagnostics.suggest_beta(net, x, y, make, 1e-3)
    assert not any(row.problem for row in found.rows)
    assert all(p.grad is None and p.dtype == torch.float32 and p.requires_grad for p in net.parameters())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert modes == [module.training for module in net.modules()]
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], coin.generator.get_state())


def test_dropout_is_left_out_and_the_order_of_estimators_does_not_matter():
    layers = [ep.DenseLayer(6, ep.tanh, dropout=0.5), ep.DenseLayer(3, ep.tanh)]
    net = ep.chain((4,), layers, ep.SquaredError).double().train()
    x, y = torch.randn(3, 4, dtype=torch.float64), torch.arange(3)
    noisy = nudging(ep.symmetric(0.1), rule=ep.learning.Noisy(ep.contrastive, 0.01))
    one = diagnostics.compare(net, x, y, {"exact": ep.ImplicitDifferentiation(FAR), "noisy": noisy})
    two = diagnostics.compare(net, x, y, {"noisy": noisy})
    assert one.of("exact").error < 1e-8
    assert one.of("noisy") == two.of("noisy")


def test_settling_is_reported_node_by_node():
    free, nudged = ep.FixedSweeps(4), ep.FixedSweeps(3)
    estimator = ep.EquilibriumPropagation(ep.learning.five_point(0.1), free, nudged)
    net, (x, y) = network(), batch()
    found = diagnostics.compare(net, x, y, {"ep": estimator, "exact": ep.ImplicitDifferentiation(FAR)})
    went = found.settling["ep"]
    with torch.no_grad():
        change = free(net.landscape(x), net.landscape(x).zeros()).residuals
    assert went.free_residual == {node: float(each.max()) for node, each in change.items()}
    assert set(went.nudged_residual) == {"layer1", "layer2"}
    assert (went.free_sweeps, went.nudged_sweeps) == (4, 12)
    assert found.settling["exact"].nudged_residual is None
    assert found.settling["ep"].switched_windows is None  # no max pooling
    assert found.settling["ep"].clipped_units is None  # no clips


def test_switched_windows_and_clipped_units_are_counted():
    net = ep.chain(
        (1, 4, 4),
        [ep.ConvLayer(1, pool=None, activation=ep.hard_sigmoid), ep.ConvLayer(1, activation=ep.hard_sigmoid)],
        partial(ep.ReadoutCrossEntropy, classes=2),
    )
    with torch.no_grad():
        net.couplings["layer1_layer2"].map.weight.zero_()[0, 0, 1, 1] = 1  # the identity, then 2 x 2 max pooling
    first = torch.full((1, 1, 4, 4), 0.5)
    first[0, 0, ::2, ::2] = 0.8  # the winner of each of four windows
    second = torch.full((1, 1, 2, 2), 0.5)
    second[0, 0, 0] = torch.tensor([0.0, 1.0])
    free = {"layer1": first, "layer2": second}
    moved, over = first.clone(), second.clone()
    moved[0, 0, 1, 1] = 0.9  # another winner in one window
    over[0, 0, 0, 0] = 0.1  # one of the two clipped units leaves its corner
    over[0, 0, 1, 0] = 1.0  # and another one comes to it
    nudged = {"layer1": torch.cat([moved, first]), "layer2": torch.cat([over, second])}
    assert switched_windows(net, free, nudged) == 1 / 8
    assert clipped_units(net, free, nudged) == 2 / 5
    smooth = ep.chain((3,), [ep.DenseLayer(2, ep.tanh)], ep.SquaredError)
    assert switched_windows(smooth, {}, {}) is None
    assert clipped_units(smooth, {}, {}) is None


@pytest.mark.parametrize("separate", [False, True])
def test_a_strong_nudge_switches_more_than_a_weak_one(separate):
    layers = [ep.ConvLayer(3, pool=None, activation=ep.hard_sigmoid), ep.ConvLayer(3, activation=ep.hard_sigmoid)]
    net = ep.chain((1, 4, 4), layers, partial(ep.ReadoutCrossEntropy, classes=3), separate).double()
    settle = ep.FixedSweeps(30)
    estimators = {
        f"{beta}": ep.EquilibriumPropagation(ep.symmetric(beta), settle, settle, form=ep.learning.forms.states)
        for beta in (1e-6, 3.0)
    }
    found = diagnostics.compare(net, *batch(20), estimators, lambda network, *rest: dict(network.named_parameters()))
    weak, strong = found.settling["1e-06"], found.settling["3.0"]
    assert weak.switched_windows < strong.switched_windows < 1
    assert weak.clipped_units < strong.clipped_units < 1


def test_tables_hold_every_row_and_mark_failures():
    exact = ep.ImplicitDifferentiation(FAR)
    found = diagnostics.compare(network(), *batch(), {"exact": exact, "bad": Changed(exact, lambda g: g * math.nan)})
    table = found.table("a title")
    assert table.row_count == len(found.rows) == 7 + 1
    assert found.phases().row_count == len(found.settling)


def test_wrong_arguments_are_refused_before_any_work():
    net, (x, y) = network(), batch()
    boom = Changed(ep.ImplicitDifferentiation(FAR), lambda gradient: 1 / 0)

    def refused(match, network=net, x=x, y=y, estimators=None, reference=None):
        with pytest.raises(ep.InputError, match=match):
            diagnostics.compare(network, x, y, {"boom": boom} if estimators is None else estimators, reference)

    refused("nothing to compare", estimators={})
    refused("not an Estimator", estimators={"sgd": torch.optim.SGD})
    refused("not an Estimator", estimators={"class": ep.ImplicitDifferentiation})
    refused("no reference", reference={})
    refused("reference 'truth'", reference={"truth": 3})
    refused("reference 'class'", reference={"class": diagnostics.FiniteDifferences})
    refused("int64 labels", y=y.float())
    refused(r"takes \(batch, 1, 4, 4\)", x=torch.randn(2, 5, dtype=torch.float64))
    refused("has no loss", network=ep.chain((4,), [ep.DenseLayer(3)]))
    refused("nothing to estimate", network=network().requires_grad_(False))


def test_finite_differences_refuse_what_would_take_too_long():
    reference = diagnostics.FiniteDifferences(limit=100)
    row = diagnostics.compare(network(), *batch(), {"exact": ep.ImplicitDifferentiation(FAR)}, reference).of("exact")
    assert "the limit is 100 parameters" in row.problem


def test_frozen_parameters_are_left_out():
    net = network()
    net.couplings["layer1_bias"].requires_grad_(False)
    found = diagnostics.compare(
        net, *batch(), {"exact": ep.ImplicitDifferentiation(FAR)}, diagnostics.FiniteDifferences()
    )
    assert "couplings.layer1_bias.bias" not in {row.parameter for row in found.rows}
    assert found.of("exact").error < 1e-7


def test_read_noise_shows_in_the_gradient_as_noise_over_beta():
    """Its standard deviation is proportional to read_noise / (beta sqrt(reads)), in both forms."""
    (net, (x, y)), short = (network(), batch()), ep.FixedSweeps(12)

    def spread(read_noise, reads, beta, form=ep.learning.forms.displacements):
        rule = ep.learning.Noisy(ep.contrastive, read_noise, reads)
        estimator = ep.EquilibriumPropagation(ep.symmetric(beta), short, short, rule, form)
        torch.manual_seed(1)
        found = [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(
                        ep.Equilibrium(net, estimator, "ignore").loss(x, y), list(net.parameters())
                    )
                ]
            )
            for _ in range(30)
        ]
        return float(torch.stack(found).std(0).norm())

    base = spread(1e-3, 1, 0.1)
    assert spread(2e-3, 1, 0.1) / base == pytest.approx(2, rel=0.02)
    assert spread(1e-3, 4, 0.1) / base == pytest.approx(0.5, rel=0.02)
    assert spread(1e-3, 1, 0.05) / base == pytest.approx(2, rel=0.05)
    assert spread(1e-3, 1, 0.1, ep.learning.forms.states) / base == pytest.approx(1, rel=0.02)
    for bad in ({"read_noise": -1.0}, {"read_noise": math.inf}, {"read_noise": 0.1, "reads": 0}):
        with pytest.raises(ep.InputError, match="read_noise"):
            ep.learning.Noisy(ep.contrastive, **bad)
