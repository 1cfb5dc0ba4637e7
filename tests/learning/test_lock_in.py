"""The lock-in estimator: a real nudge that oscillates, on machines that stand still and on machines that drift."""

import math
from collections import defaultdict
from dataclasses import dataclass

import pytest
import torch

import eqprop as ep
from eqprop.energy import Nudge, Substrate
from eqprop.learning import LockIn, Stencil, forms

REST = ep.UntilConverged(1e-14, 5000)
BETA = 0.02
EXACT = ep.ImplicitDifferentiation(REST, 1e-13)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = ep.chain((6,), [ep.DenseLayer(8, ep.tanh), ep.DenseLayer(3, ep.tanh)], ep.SquaredError).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.6)
    return made


def gradient(network, estimator):
    torch.manual_seed(1)
    x, y = torch.randn(16, 6, dtype=torch.float64), torch.rand(16, 3, dtype=torch.float64) - 0.5
    loss = ep.Equilibrium(network, estimator, on_unsettled="raise").loss(x, y)
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(network.parameters()))])


def relative(found, right):
    return float((found - right).norm() / right.norm())


def merged(points):
    """The nudges of one turn, equal ones added up, from the definition."""
    found = defaultdict(float)
    for k in range(points):
        wave = math.cos(2 * math.pi * (k + 0.5) / points)
        found[round(BETA * wave, 16)] += 2 * wave / (points * BETA)
    return Stencil(tuple(found), tuple(found.values()))


@pytest.mark.parametrize("form", [forms.states, forms.displacements])
@pytest.mark.parametrize(("points", "turns"), [(3, 1), (4, 1), (8, 1), (8, 3)])
def test_on_a_still_machine_it_is_the_merged_stencil(network, points, turns, form):
    stencil = merged(points)
    assert stencil.order == (1 if points == 3 else 2)
    found = gradient(network, LockIn(BETA, points, REST, REST, turns, form=form))
    right = gradient(network, ep.EquilibriumPropagation(stencil, REST, REST, form=form))
    # Where nudged states are subtracted, rounding counts 1 / beta times.
    assert relative(found, right) < (1e-12 if form is forms.displacements else 1e-10)


def test_four_points_are_the_centred_rule(network):
    found = gradient(network, LockIn(BETA, 4, REST, REST))
    right = gradient(network, ep.EquilibriumPropagation(ep.symmetric(BETA / math.sqrt(2)), REST, REST))
    assert relative(found, right) < 1e-12


class Pushed(Nudge):
    """A nudge with a constant force of its own."""

    def energy(self, *states):
        return super().energy(*states) - 1e-3 * states[0].sum(1)

    def drive(self, node, *states):
        return super().drive(node, *states) + 1e-3

    def select(self, examples):
        made = super().select(examples)
        return Pushed(made.loss, made.target, made.scale, self.quadratic)


@dataclass(frozen=True)
class Drifting(Substrate):
    """Each reading has a gain lower by ``per_reading`` than the one before; each nudge has an offset."""

    per_reading: float = 1e-4

    def measured(self, state, reading):
        gain = 1 - self.per_reading * reading
        return {node: gain * value for node, value in state.items()}

    def injected(self, nudge):
        return Pushed(nudge.loss, nudge.target, nudge.scale, nudge.quadratic)


def test_drift_and_an_offset_of_the_nudge_cancel(network):
    exact, real = gradient(network, EXACT), network.on(Drifting())

    def error(estimator):
        return relative(gradient(real, estimator), exact)

    naive = error(ep.EquilibriumPropagation(ep.one_sided(BETA), REST, REST))
    assert naive > 0.02
    assert error(LockIn(BETA, 8, REST, REST)) < naive / 10


def test_a_linear_drift_leaves_its_own_size_and_no_more(network):
    """A gain drift of p over a turn counts p, and not p / beta."""

    def error(beta):
        estimator = LockIn(beta, 8, REST, REST)
        still, drifting = (gradient(network.on(Drifting(each)), estimator) for each in (0.0, 1e-5))
        return relative(drifting, still)

    assert 1e-5 < error(BETA) < 4 * 8 * 1e-5
    assert error(BETA / 8) < 1.1 * error(BETA)


def test_readings_count_on_from_turn_to_turn(network):
    seen = []

    class Watching(Substrate):
        def measured(self, state, reading):
            seen.append(reading)
            return state

    gradient(network.on(Watching()), LockIn(BETA, 4, REST, REST, turns=3, transient=2))
    assert [reading for reading in seen if reading > 0] == list(range(1, 13))


def test_a_state_that_is_never_reset_lags_little(network):
    exact = gradient(network, EXACT)
    few = LockIn(BETA, 32, REST, ep.FixedSweeps(2), transient=2)
    torch.manual_seed(1)
    x, y = torch.randn(16, 6, dtype=torch.float64), torch.rand(16, 3, dtype=torch.float64) - 0.5
    loss = ep.Equilibrium(network, few, on_unsettled="ignore").loss(x, y)
    found = torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(network.parameters()))])
    assert relative(found, exact) < 0.1


def test_clip_units_and_few_points():
    torch.manual_seed(0)
    clipped = ep.chain((6,), [ep.DenseLayer(8), ep.DenseLayer(3)], ep.SquaredError).double()
    assert gradient(clipped, LockIn(BETA, 3, REST, REST)).isfinite().all()
    with pytest.raises(ep.InputError, match="points"):
        LockIn(BETA, 2, REST, REST)
