"""What a solver reports, and that what a landscape remembers is never what a state no longer is."""

import pytest
import torch
from networks import SWEEPS, chain, start, triangle

import eqprop as ep


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.parametrize("sweeps", [1, 2, 7])
def test_the_residual_is_the_last_sweeps_largest_change(sweep, sweeps):
    with torch.no_grad():
        scene, state = start(triangle())
        settled = ep.FixedSweeps(sweeps, sweep)(scene, state)
        before = ep.FixedSweeps(sweeps - 1, sweep)(scene, state).state if sweeps > 1 else state
    for node, value in settled.state.items():
        torch.testing.assert_close(settled.residuals[node], (value - before[node]).abs().amax(1), rtol=0, atol=0)
    torch.testing.assert_close(settled.residual, torch.stack(list(settled.residuals.values())).amax(0))
    assert settled.sweeps.tolist() == [sweeps] * 3
    assert float(settled.residuals[settled.worst_node()].max()) == float(settled.residual.max())


def test_sweeps_compose():
    with torch.no_grad():
        scene, state = start(chain(3))
        whole = ep.FixedSweeps(7)(scene, state).state
        halves = ep.FixedSweeps(4)(scene, ep.FixedSweeps(3)(scene, state).state).state
    for node, value in whole.items():
        assert torch.equal(halves[node], value)


def test_until_rest_takes_as_many_sweeps_as_it_says_and_no_fewer_would_do():
    with torch.no_grad():
        scene, state = start(chain(3))
        settled = ep.UntilConverged(1e-6, 500)(scene, state)
        for i, taken in enumerate(settled.sweeps.tolist()):
            assert 1 < taken < 500
            same, sooner = (ep.FixedSweeps(n)(scene, state) for n in (taken, taken - 1))
            assert float(same.residual[i]) <= 1e-6
            assert float(settled.distance[i]) <= 1e-6 < float(sooner.distance[i])
            for node, value in settled.state.items():
                # To rounding: a matrix product of fewer rows may add in another order.
                torch.testing.assert_close(same.state[node][i], value[i], rtol=0, atol=1e-14)


def test_until_rest_goes_on_with_what_moves_and_returns_every_example_in_its_place():
    torch.manual_seed(3)
    convolution = ep.ConvLayer(3, 3, padding=1, pool=ep.MaxPool(2), activation=ep.tanh)
    network = ep.chain((1, 6, 6), [convolution, ep.DenseLayer(4, ep.tanh)]).double()
    x = torch.randn(20, 1, 6, 6, dtype=torch.float64) * torch.linspace(0, 4, 20).double().view(-1, 1, 1, 1)
    sizes = []

    def counting(landscape, state):
        sizes.append(len(state["layer1"]))
        return ep.alternating(landscape, state)

    with torch.no_grad():
        scene = network.landscape(x, network.draw_masks(20))
        together = ep.UntilConverged(1e-3, 400, counting)(scene, scene.zeros())
        assert sizes[0] == 20
        assert sizes[-1] < 10  # or nothing was left out
        for i in range(20):
            scene = network.landscape(x[i : i + 1])
            alone = ep.UntilConverged(1e-3, 400)(scene, scene.zeros())
            assert int(alone.sweeps) == int(together.sweeps[i])
            for node, value in alone.state.items():
                torch.testing.assert_close(together.state[node][i], value[0], rtol=0, atol=1e-13)


def test_until_rest_stops_at_its_limit_and_says_how_far_from_rest_it_is():
    with torch.no_grad():
        scene, state = start(chain(3))
        settled = ep.UntilConverged(1e-12, 4)(scene, state)
    assert settled.sweeps.tolist() == [4] * 3
    assert bool((settled.residual > 1e-12).all())


def test_a_relative_change_asks_the_same_of_large_and_of_small_activity():
    torch.manual_seed(0)
    network = ep.chain((4,), [ep.DenseLayer(5, ep.identity), ep.DenseLayer(3, ep.identity)]).double()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)  # a linear network without biases: its states scale with its input
        else:
            parameter.data.mul_(0.5)
    x = torch.randn(6, 4, dtype=torch.float64)

    def sweeps(measure, size):
        with torch.no_grad():
            scene = network.landscape(size * x)
            return ep.UntilConverged(1e-4, 400, norm=measure)(scene, scene.zeros()).sweeps.tolist()

    assert (
        sweeps(ep.settling.relative_norm, 1.0)
        == sweeps(ep.settling.relative_norm, 1e-6)
        == sweeps(ep.settling.relative_norm, 1e3)
    )
    assert max(sweeps(ep.settling.max_norm, 1e-6)) < min(sweeps(ep.settling.max_norm, 1.0))


def test_a_node_that_stays_silent_is_at_rest():
    silent = {"h": torch.zeros(2, 3)}
    assert ep.settling.relative_norm(silent, silent)["h"].tolist() == [0.0, 0.0]
    assert ep.settling.relative_norm({"h": torch.ones(2, 3)}, {"h": torch.full((2, 3), torch.nan)})["h"].isnan().all()


def test_one_example_that_is_not_finite_spoils_no_other():
    network = chain(2)
    torch.manual_seed(1)
    x = torch.randn(3, 3, dtype=torch.float64)
    spoilt = x.clone()
    spoilt[1] = torch.nan
    with torch.no_grad():
        well, ill = (
            ep.UntilConverged(1e-8, 200)(scene, scene.zeros()) for scene in (network.landscape(v) for v in (x, spoilt))
        )
    assert ill.residual.isfinite().tolist() == [True, False, True]
    assert ill.sweeps.tolist() == [int(well.sweeps[0]), 2, int(well.sweeps[2])]  # no longer than a NaN travels
    assert ill.status.tolist() == [0, ep.settling.Status.NON_FINITE, 0]
    for node, value in well.state.items():
        torch.testing.assert_close(ill.state[node][[0, 2]], value[[0, 2]], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_state_changed_in_place_is_seen(dropout):
    """A landscape remembers what it carried of the latest state, and what dropout let through of it."""
    torch.manual_seed(0)
    layers = [
        ep.ConvLayer(2, padding=1, activation=ep.tanh, dropout=dropout),
        ep.ConvLayer(3, padding=1, activation=ep.tanh),
    ]
    network = ep.chain((2, 8, 8), layers).double()
    torch.manual_seed(2)
    x, masks = torch.randn(2, 2, 8, 8, dtype=torch.float64), network.draw_masks(2)
    scene = network.landscape(x, masks)
    state = {n: torch.randn(2, *node.shape, dtype=torch.float64) for n, node in network.free.items()}
    with torch.no_grad():
        for _ in range(3):
            for node in network.free:
                fresh = network.landscape(x, masks)
                torch.testing.assert_close(scene.drive(state, node), fresh.drive(state, node), rtol=0, atol=0)
            state["layer1"].neg_()
            state["layer2"].add_(1)
        held = {n: v.clone() for n, v in state.items()}
        other = {n: v + 1 for n, v in state.items()}
        scene.drive(other, "layer2")  # another state in between
        torch.testing.assert_close(scene.drive(state, "layer2"), network.landscape(x, masks).drive(held, "layer2"))


@pytest.mark.parametrize("solver", [ep.FixedSweeps(5), ep.UntilConverged(1e-3, 5)], ids=["fixed", "converged"])
def test_settling_leaves_its_start_and_its_data_alone(solver):
    network = chain(3)
    scene, state = start(network)
    before = {node: (value, value.clone()) for node, value in state.items()}
    with torch.no_grad():
        solver(scene, state)
    for node, (same, was) in before.items():
        assert state[node] is same
        assert torch.equal(same, was)


def test_a_batch_stacked_is_each_of_its_copies():
    network = triangle()
    scene, state = start(network)
    with torch.no_grad():
        alone = ep.FixedSweeps(6)(scene, state)
        twice = ep.FixedSweeps(6)(
            scene.select(torch.arange(3).repeat(2)), {n: torch.cat([v, v]) for n, v in state.items()}
        )
    for node, value in alone.state.items():
        torch.testing.assert_close(twice.state[node], torch.cat([value, value]), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("sweeps", "last"), [(7, 1), (7, 3), (7, 7), (1, 1)])
def test_averaged_is_the_mean_of_the_states_after_the_last_sweeps(sweeps, last):
    with torch.no_grad():
        scene, state = start(chain(3))
        found = ep.settling.Averaged(sweeps, last=last)(scene, state)
        each = [ep.FixedSweeps(n)(scene, state) for n in range(sweeps - last + 1, sweeps + 1)]
    for node, value in found.state.items():
        right = torch.stack([one.state[node] for one in each]).mean(0)
        torch.testing.assert_close(value, right, rtol=0, atol=1e-15)
    assert torch.equal(found.status, each[-1].status)
    assert torch.equal(found.residual, each[-1].residual)
    with pytest.raises(ep.InputError, match="last"):
        ep.settling.Averaged(3, last=4)
