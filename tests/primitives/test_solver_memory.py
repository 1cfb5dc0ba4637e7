"""A solver's memory: returned with the free phase, handed to the nudged ones."""

from dataclasses import dataclass

import pytest
import torch
from every_estimator import EXACT, gradients, relative
from pages import section

import eqprop as ep
from eqprop.learning import forms
from eqprop.settling import FromFeedforward


@pytest.fixture
def heavy_ball():
    return section("A sweep, a solver").HeavyBall


@dataclass(frozen=True, eq=False)
class Watched(ep.Solver):
    """Another solver, and what it was handed."""

    solver: ep.Solver
    seen: list

    def __call__(self, landscape, start, memory=None):
        self.seen.append(memory)
        return self.solver(landscape, start, memory)


def network():
    torch.manual_seed(0)
    layers = [ep.DenseLayer(5, ep.tanh), ep.DenseLayer(3, ep.tanh)]
    found = ep.chain((4,), layers, ep.SquaredError).double()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(0.8)
    return found


X, Y = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 4), torch.tensor([0, 2])


def nudging(free, nudged, form=forms.states, **more):
    return ep.EquilibriumPropagation(ep.symmetric(1e-3), free, nudged, form=form, **more)


@pytest.mark.parametrize("stacked", [True, False])
def test_the_free_phases_memory_reaches_the_nudged_phases(heavy_ball, stacked):
    """One row for each example of each phase."""
    net, free = network(), heavy_ball(20)
    first, second = Watched(free, []), Watched(free, [])
    gradients(net, nudging(first, second, stacked=stacked), X, Y)
    kept = free(net.landscape(X), net.landscape(X).zeros()).memory
    assert first.seen == [None]
    assert len(second.seen) == (1 if stacked else 2)
    for memory in second.seen:
        for node, value in kept.items():
            torch.testing.assert_close(memory[node], torch.cat([value] * (2 if stacked else 1)))
            assert bool(value.any())


def test_displacements_and_solvers_of_another_kind_start_without(heavy_ball):
    net = network()
    for form, free in ((forms.displacements, heavy_ball(20)), (forms.states, FromFeedforward(heavy_ball(20)))):
        second = Watched(heavy_ball(20), [])
        first = Watched(free, []) if form is forms.displacements else free
        gradients(net, nudging(first, second, form), X, Y)
        assert second.seen == [None]


@pytest.mark.parametrize("form", [forms.states, forms.displacements])
def test_it_learns_the_exact_gradient(heavy_ball, form):
    net, solver = network(), heavy_ball(300, tolerance=1e-10)
    right = gradients(net, EXACT, X, Y)
    assert relative(gradients(net, nudging(solver, solver, form), X, Y), right) < 1e-4
    assert relative(gradients(net, ep.InfinitesimalNudge(solver, solver), X, Y), right) < 1e-8


def test_some_examples_take_their_rows_of_it(heavy_ball):
    net = network()
    settled = heavy_ball(5)(net.landscape(X), net.landscape(X).zeros())
    rows = torch.tensor([1, 0, 1])
    for node, value in settled.select(rows).memory.items():
        assert torch.equal(value, settled.memory[node][rows])
