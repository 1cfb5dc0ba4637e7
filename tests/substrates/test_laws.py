"""The laws of faults: how the error that one adds to the gradient goes with its size and with beta.

The network and the exponents are those of a program in numpy that shares no code with this package. Each row has the
errors that it gives, relative to the gradient, at a size of 1e-3 and a beta of 0.02; nan where it has none.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch

import eqprop as ep
from eqprop import substrates as s, testing
from eqprop.energy import Substrate
from eqprop.learning import forms

SIZE, BETA, FACTOR = 1e-3, 0.02, 4
REST, SWEEPS = ep.UntilConverged(1e-14, 400), ep.FixedSweeps(60)
STENCILS = {"one-sided": ep.one_sided, "centred": ep.symmetric}
BOTH = {"one-sided": -1.0, "centred": -1.0}
UNKNOWN = (math.nan, math.nan)
NONE = {"one-sided": 0.0, "centred": 0.0}


@dataclass(frozen=True)
class Law:
    """A fault of a size, the exponent of beta, and the errors of the reference (one-sided, centred).

    ``size``: at which the law is measured, over so many ``batches``. Steps of the dynamics make few values a power: on
    average, and where the step is well below what it rounds.
    """

    fault: Callable[[float], Substrate]
    beta: dict[str, float]
    errors: tuple[float, float]
    back: bool = False
    solver: ep.Solver = REST
    size: float = SIZE
    batches: int = 1


def network():
    torch.manual_seed(0)
    layers = [ep.DenseLayer(20, ep.tanh), ep.DenseLayer(20, ep.tanh), ep.DenseLayer(5, ep.identity)]
    net = ep.chain((10,), layers, ep.SquaredError).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(0.35 * torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
            if "bias" in name:
                parameter.zero_()
    return net


def batch(seed):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(64, n, generator=g, dtype=torch.float64) for n in (10, 5))


NET = network()
X, Y = batch(1)
WEIGHTS = [parameter for name, parameter in NET.named_parameters() if "bias" not in name]
RELATIVE = sum(float(w.detach().square().mean().sqrt() / w.detach().abs().max()) for w in WEIGHTS) / len(WEIGHTS)
"""Root mean square weights, relative to the largest: the reference's noise is a share of each weight."""


LAWS = {
    "noise of each read": Law(s.ReadNoise, BOTH, (0.31, 0.16)),
    "noise of every sweep": Law(s.UnitNoise, BOTH, (0.32, 0.16), solver=SWEEPS),
    "converter, at random": Law(lambda p: s.ReadConverter(p, random=True), BOTH, (0.13, 0.067)),
    "converter, nearest": Law(s.ReadConverter, BOTH, (0.095, 0.046)),
    "offsets of two readers": Law(
        lambda p: s.TwoCircuits(s.ReadSpread(0.0, p), s.ReadSpread(0.0, p, seed=1)), BOTH, (0.39, 0.20)
    ),
    "drift, order A B": Law(s.Droop, BOTH, (0.20, 0.10)),
    "two copies of the weights": Law(lambda p: s.TwoCircuits(Substrate(), s.WeightSpread(p)), BOTH, (0.22, 0.11)),
    "weight noise": Law(lambda p: s.WeightNoise(RELATIVE * p), BOTH, (0.29, 0.15)),
    "levels of the nudge": Law(s.NudgeLevels, BOTH, UNKNOWN, size=SIZE / FACTOR, batches=4),
    "converters in the loop": Law(s.LoopConverter, BOTH, UNKNOWN, solver=SWEEPS, size=SIZE / FACTOR, batches=4),
    "converters of drives": Law(
        lambda p: s.LoopConverter(0.0, p), BOTH, UNKNOWN, solver=SWEEPS, size=SIZE / FACTOR, batches=4
    ),
    "writing noise": Law(s.WriteNoise, NONE, UNKNOWN),
    "gains of messages, apart": Law(lambda p: s.MessageGains(0.0, p), NONE, UNKNOWN),
    "nudge offset": Law(s.NudgeOffset, {"one-sided": -1.0, "centred": 0.0}, (0.046, 0.0017)),
    "drift, order A B B A": Law(s.Droop, NONE, (0.0026, 0.0028), back=True),
    "two copies of the weights, order A B B A": Law(
        lambda p: s.TwoCircuits(Substrate(), s.WeightSpread(p)), NONE, UNKNOWN, back=True
    ),
    "offsets of one reader": Law(lambda p: s.ReadSpread(0.0, p), NONE, (0.0034, 0.0035)),
    "gains of one reader": Law(s.ReadSpread, NONE, (0.0012, 0.0013)),
    "gains of the nudge": Law(s.NudgeGain, NONE, (0.0007, 0.0008)),
    "unequal nudges": Law(s.UnequalNudges, NONE, (0.0009, 0.0005)),
    "feedback that is no transpose": Law(s.FeedbackSpread, NONE, (0.0010, 0.0011)),
}


def estimate(substrate, stencil, beta, back=False, solver=REST, x=X, y=Y):
    turns = substrate.per_phase
    estimator = ep.EquilibriumPropagation(
        STENCILS[stencil](beta), solver, solver, form=forms.states, stacked=not turns, there_and_back=back
    )
    return gradient(substrate, estimator, x, y)


def gradient(substrate, estimator, x=X, y=Y):
    model = ep.Equilibrium(NET.on(substrate), estimator, on_unsettled="ignore")
    return torch.cat([each.flatten() for each in torch.autograd.grad(model.loss(x, y), WEIGHTS)])


def relative(found, right):
    return float((found - right).norm() / right.norm())


@cache
def ideal(stencil, beta, seed=1):
    x, y = batch(seed)
    return estimate(Substrate(), stencil, beta, x=x, y=y)


def error(substrate, stencil, beta, batches=1, **more):
    """What the substrate adds to the estimate at this beta, relative to the gradient: root mean square over batches."""
    added, size = 0.0, 0.0
    for seed in range(1, 1 + batches):
        x, y = batch(seed)
        exact = ideal(stencil, beta, seed)
        added += float((estimate(substrate, stencil, beta, x=x, y=y, **more) - exact).square().sum())
        size += float(exact.square().sum())
    return math.sqrt(added / size)


def exponents(law, stencil, fault=None):
    """The error at the law's size and the reference's beta, and the exponents of both."""
    make, more = fault or law.fault, {"back": law.back, "solver": law.solver, "batches": law.batches}
    at = error(make(law.size), stencil, BETA, **more)
    assert at > 0
    larger = error(make(FACTOR * law.size), stencil, BETA, **more)
    further = error(make(law.size), stencil, FACTOR * BETA, **more)
    return at, math.log(larger / at, FACTOR), math.log(further / at, FACTOR)


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("name", LAWS)
def test_the_exponents_of_size_and_beta(name, stencil):
    law = LAWS[name]
    at, size, beta = exponents(law, stencil)
    assert size == pytest.approx(1, abs=0.1)
    assert beta == pytest.approx(law.beta[stencil], abs=0.12)
    expected = law.errors[list(STENCILS).index(stencil)]
    assert math.isnan(expected) or expected / 2 < at < 2 * expected  # another network of the same kind


def test_centred_read_noise_is_half_of_one_sided():
    one, two = (error(s.ReadNoise(SIZE), stencil, BETA) for stencil in STENCILS)
    assert two == pytest.approx(one / 2, rel=0.1)


def test_the_mean_of_reads_has_the_noise_of_one_over_their_root():
    one, many = (error(s.ReadNoise(SIZE, reads), "centred", BETA) for reads in (1, 16))
    assert many == pytest.approx(one / 4, rel=1e-3)


REPEATED = {"weights": s.WeightNoise, "writing": s.WriteNoise}


@pytest.mark.parametrize("name", REPEATED)
def test_the_mean_of_steps_has_the_noise_of_one_over_their_root(name):
    """Noise that every step draws anew, of which a batch has one draw for all its examples."""
    exact, fault = ideal("centred", BETA), REPEATED[name](SIZE)
    found = torch.stack([estimate(fault, "centred", BETA) for _ in range(36)])
    single = math.sqrt(sum(relative(each, exact) ** 2 for each in found) / 36)
    means = found.view(4, 9, -1).mean(1)
    several = math.sqrt(sum(relative(each, exact) ** 2 for each in means) / 4)
    assert several == pytest.approx(single / 3, rel=0.15)


def test_errors_below_half_a_level_of_the_nudge_teach_nothing():
    """The nudging force is beta times the error, to the first order in beta."""
    largest = BETA * float((Y - ep.Equilibrium(NET, EXACT)(X).detach()).abs().max())
    dead, few = (estimate(s.NudgeLevels(levels * largest), "centred", BETA) for levels in (2.2, 1.4))
    assert float(dead.norm()) < 1e-9 * float(ideal("centred", BETA).norm()) < float(few.norm())


@pytest.mark.parametrize("make", [s.ReadNoise, s.WeightNoise])
def test_symmetric_nudges_halve_noise_and_there_and_back_divides_it_by_the_root_of_two(make):
    def noise(stencil, back):
        fault = make(SIZE)  # which draws anew each time
        return math.sqrt(sum(error(fault, stencil, BETA, back=back) ** 2 for _ in range(12)) / 12)

    one, two, back = (noise(*each) for each in (("one-sided", False), ("centred", False), ("centred", True)))
    assert two == pytest.approx(one / 2, rel=0.1)
    assert back == pytest.approx(two / math.sqrt(2), rel=0.1)


def test_a_batch_averages_noise_of_reads_and_not_that_of_weights():
    """The size of what is added, not relative to a gradient, from 16 examples to 256."""

    def added(fault, examples):
        g = torch.Generator().manual_seed(1)
        x, y = (torch.randn(examples, n, generator=g, dtype=torch.float64) for n in (10, 5))
        exact = estimate(Substrate(), "centred", BETA, x=x, y=y)
        found = [float((estimate(fault, "centred", BETA, x=x, y=y) - exact).square().sum()) for _ in range(8)]
        return math.sqrt(sum(found) / 8)

    reads, weights = (added(make(SIZE), 16) / added(make(SIZE), 256) for make in (s.ReadNoise, s.WeightNoise))
    assert reads == pytest.approx(4, rel=0.15)
    assert weights < 1.5


@pytest.mark.parametrize("step", [0.1, 0.02, 5e-3, 1e-3])
def test_rounding_to_the_nearest_beats_rounding_at_random(step):
    nearest, random = (error(s.ReadConverter(step, random=each), "centred", BETA) for each in (False, True))
    assert nearest < 0.8 * random


def test_converters_of_reads_alone_err_less_than_those_in_the_loop():
    """By less than half: they are no cure."""
    for stencil in STENCILS:
        loop = error(s.LoopConverter(SIZE), stencil, BETA, solver=SWEEPS, batches=4)
        assert 0.5 < error(s.ReadConverter(SIZE), stencil, BETA, batches=4) / loop < 1


def test_the_mean_of_the_last_sweeps_has_less_noise_about_as_one_over_their_root():
    """States of neighbouring sweeps are correlated, which costs a factor and no power."""

    def noise(last):
        return error(s.UnitNoise(SIZE), "centred", BETA, solver=ep.settling.Averaged(140, last=last), batches=4)

    assert math.log(noise(8) / noise(128), 16) == pytest.approx(0.5, abs=0.1)
    assert noise(8) < 0.5 * noise(1)


SETTLING = {
    "all alike": (ep.synchronous, (0.25, 0.12, 0.054, 0.012, 2.8e-3, 1.7e-4)),
    "10 % of spread": (ep.settling.Leaky(1.0, spread=0.1), None),
    "slow, 30 % of spread": (ep.settling.Leaky(0.6, spread=0.3), None),
}
"""Sweeps of units whose time constants differ; the errors of the reference after each number of sweeps."""


@pytest.mark.parametrize("name", SETTLING)
def test_phases_that_are_cut_short_err_by_a_power_of_their_length(name):
    sweep, known = SETTLING[name]
    lengths, full = (4, 6, 8, 12, 16, 24), ideal("centred", BETA)

    def short(n):
        estimator = ep.EquilibriumPropagation(ep.symmetric(BETA), REST, ep.FixedSweeps(n, sweep), form=forms.states)
        return relative(gradient(Substrate(), estimator), full)

    errors = [short(n) for n in lengths]
    slope = math.log(errors[-1] / errors[0]) / (lengths[-1] - lengths[0])
    assert slope < -0.1
    for n, found in zip(lengths, errors, strict=True):
        assert math.log(found / errors[0]) == pytest.approx(slope * (n - lengths[0]), abs=0.3)
    if known:
        assert all(right / 2 < found < 2 * right for found, right in zip(errors, known, strict=True))
    assert short(200) < 1e-10  # at rest time constants do not count


@pytest.mark.parametrize("stencil", STENCILS)
def test_the_order_a_b_b_a_cancels_a_drift(stencil):
    there, back = (error(s.Droop(SIZE), stencil, BETA, back=each) for each in (False, True))
    assert back < there / 20


@pytest.mark.parametrize("stencil", STENCILS)
def test_there_and_back_on_the_ideal_substrate_is_the_same_estimate(stencil):
    found, right = (estimate(Substrate(), stencil, BETA, back=back) for back in (True, False))
    torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-13)


EXACT = ep.ImplicitDifferentiation(REST, 1e-13)
IN_SITU = {
    "units": s.UnitSpread(0.3, 0.3),
    "weights": s.WeightSpread(0.3),
    "stuck weights": s.StuckWeights(0.3, 0.1),
    "levels": s.WeightRange(0.3, 8),
    "wires": s.Wires(1e-3),
    "all": s.Together(s.UnitSpread(0.3, 0.3), s.WeightSpread(0.3), s.Wires(1e-3)),
}


@pytest.mark.parametrize("name", IN_SITU)
def test_learning_in_situ_follows_the_gradient_of_the_machine_as_it_is(name):
    found, right = estimate(IN_SITU[name], "centred", 0.005), gradient(IN_SITU[name], EXACT)
    assert relative(found, right) < 1e-3
    assert relative(gradient(Substrate(), EXACT), right) > 0.02


def test_equal_gains_of_messages_leave_a_direction_of_descent():
    """Of each matrix, the gradient is the exact one times positive factors of its rows and columns."""

    def loss(fault, step, of):
        moved = [w + step * g for w, g in zip(WEIGHTS, of, strict=True)]
        with torch.no_grad():
            kept = [w.clone() for w in WEIGHTS]
            for w, new in zip(WEIGHTS, moved, strict=True):
                w.copy_(new)
            value = float(ep.Equilibrium(NET.on(fault), EXACT).loss(X, Y))
            for w, old in zip(WEIGHTS, kept, strict=True):
                w.copy_(old)
        return value

    fault = s.MessageGains(0.3)
    parts = estimate(fault, "centred", 0.005).split([w.numel() for w in WEIGHTS])
    steps = [part.view_as(w) for part, w in zip(parts, WEIGHTS, strict=True)]
    assert loss(fault, -1e-3, steps) < loss(fault, 0.0, steps) < loss(fault, 1e-3, steps)


# -- what these tests notice --


class SharedNoise(s.ReadNoise):
    """All phases share the noise of one reading."""

    def measured(self, state, reading):
        return super().measured(state, 0)


class PhaseOrderIgnored(s.Droop):
    def measured(self, state, reading):
        return super().measured(state, min(reading, 1) and 1)


@pytest.mark.parametrize("stencil", STENCILS)
def test_noise_that_phases_share_is_noticed(stencil):
    _, _, beta = exponents(LAWS["noise of each read"], stencil, SharedNoise)
    assert beta > -0.5


def test_a_phase_order_that_is_ignored_is_noticed():
    _, _, beta = exponents(LAWS["drift, order A B"], "centred", PhaseOrderIgnored)
    assert beta > -0.5


def test_a_gradient_that_does_not_go_straight_through_is_noticed(monkeypatch):
    """It would be that of the weight as it is seen: 1 + size x times that of the parameter."""
    fault = s.WeightSpread(0.3)
    right = gradient(fault, EXACT)

    def with_the_factor(coupling, change):
        swapped = {id(w): change(n, w) for n, w in coupling.named_parameters()}
        return coupling if isinstance(coupling, ep.Bias) else ep.energy.substitution.swap(coupling, swapped)

    monkeypatch.setattr(s.weights, "read", with_the_factor)
    assert relative(gradient(fault, EXACT), right) > 0.1
    with pytest.raises(AssertionError, match="straight through"):
        testing.check_substrate(fault)
