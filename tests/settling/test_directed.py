"""Directed sweeps are the same sweeps from zero, without the work on what is still zero; and are enough if weak."""

import pytest
import torch
from networks import chain, conv, data, gradients, relative, shrunk, triangle

import eqprop as ep
from eqprop.energy.terms import LinearTerm
from eqprop.settling import Directed, Status, backward_order, forward_order, relative_norm
from eqprop.settling.displacement import tangent

pytestmark = pytest.mark.usefixtures("double")
SOLVERS = [
    *(ep.FixedSweeps(n, order) for n in (1, 2, 5) for order in (forward_order, backward_order)),
    *(ep.UntilConverged(1e-9, 300, order, relative_norm) for order in (forward_order, backward_order)),
]


def scene_of(network, batch=3):
    torch.manual_seed(1)
    return network.landscape(torch.randn(batch, *network.nodes[network.input].shape))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda each: f"{type(each).__name__}-{each.sweep.__name__}")
@pytest.mark.parametrize(
    "make",
    [lambda: chain(4), lambda: triangle(scale=0.5), lambda: conv(ep.MaxPool(2))],
    ids=["chain", "triangle", "conv"],
)
def test_they_are_the_solver_from_zero(make, solver):
    scene = scene_of(make())
    right, found = solver(scene, scene.zeros()), Directed(solver)(scene, scene.zeros())
    tolerance = getattr(solver, "tolerance", 0.0) if isinstance(solver, ep.UntilConverged) else 0.0
    for node, value in right.state.items():
        torch.testing.assert_close(found.state[node], value, rtol=0, atol=max(1e-13, 10 * tolerance))


def test_one_pass_forwards_is_the_feedforward_pass_and_backwards_the_response_of_it():
    """Without feedback, one pass each way gives the gradient of backpropagation."""
    network = shrunk(
        ep.chain((6,), [ep.DenseLayer(n, ep.tanh) for n in (8, 7, 4)], ep.SquaredError, feedback_gain=1e-9)
    )
    one = ep.InfinitesimalNudge(
        Directed(ep.FixedSweeps(1, forward_order)), Directed(ep.FixedSweeps(1, backward_order)), slopes_from_states=True
    )
    x, y = data(network)
    assert relative(gradients(network, one, x, y), gradients(network, ep.Backpropagation(), x, y)) < 1e-8


def test_the_error_of_n_passes_each_way_falls_with_the_nth_power_of_the_gain():
    errors = {}
    for gain in (0.1, 0.05):
        layers = [ep.DenseLayer(n, ep.tanh) for n in (8, 7, 6, 4)]
        torch.manual_seed(0)
        network = ep.chain((6,), layers, ep.SquaredError, feedback_gain=gain)
        x, y = torch.randn(5, 6), torch.arange(5) % 4
        exact = gradients(network, ep.ImplicitDifferentiation(ep.FixedSweeps(200)), x, y)
        for n in (1, 2):
            free, response = ep.FixedSweeps(n + 1, forward_order), ep.FixedSweeps(n, backward_order)
            estimator = ep.InfinitesimalNudge(Directed(free), Directed(response), slopes_from_states=True)
            errors[gain, n] = relative(gradients(network, estimator, x, y), exact)
    for n in (1, 2):
        assert errors[0.05, n] < 1.3 * 0.5**n * errors[0.1, n]


@pytest.mark.parametrize("order", [forward_order, backward_order])
def test_the_first_sweep_asks_for_no_drive_of_a_node_at_zero(order, monkeypatch):
    network = chain(5, loss=ep.SquaredError)
    scene = scene_of(network)
    with torch.no_grad():
        state = ep.FixedSweeps(100)(scene, scene.zeros()).state
        moved = tangent(scene, state, {"layer5": torch.ones_like(state["layer5"])})
        asked, drive = [], LinearTerm.drive
        monkeypatch.setattr(LinearTerm, "drive", lambda *a: (asked.append(a[1]), drive(*a))[1])
        Directed(ep.FixedSweeps(1, order))(moved, moved.zeros())
    assert len(asked) == 4  # once for each of the four couplings, not once for each of their eight ends


@torch.no_grad()
@pytest.mark.parametrize(("gain", "most"), [(0.03, 3), (0.1, 4), (0.3, 8)])
def test_by_tolerance_weak_feedback_needs_few_sweeps(gain, most):
    torch.manual_seed(0)
    network = ep.chain((6,), [ep.DenseLayer(20, ep.tanh) for _ in range(6)], ep.SquaredError, feedback_gain=gain)
    scene = scene_of(network)
    exact = ep.FixedSweeps(200)(scene, scene.zeros()).state
    found = Directed(ep.UntilConverged(0.01, 50, forward_order, relative_norm))(scene, scene.zeros())
    assert found.settled.all()
    assert 2 <= int(found.sweeps.max()) <= most
    assert max(float(value.max()) for value in relative_norm(found.state, exact).values()) < 0.02


def test_a_single_sweep_is_never_said_to_have_settled():
    scene = scene_of(chain(3))
    found = Directed(ep.FixedSweeps(1, forward_order))(scene, scene.zeros())
    assert found.status.tolist() == [Status.OUT_OF_SWEEPS] * 3


@pytest.mark.parametrize("sweep", [ep.alternating, ep.synchronous, ep.settling.Leaky(0.5, forward_order)])
def test_sweeps_without_a_direction_are_refused(sweep):
    with pytest.raises(ep.InputError, match="forward_order"):
        Directed(ep.FixedSweeps(3, sweep))
