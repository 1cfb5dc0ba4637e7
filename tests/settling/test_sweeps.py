"""Sweeps against each other, sweep by sweep, on chains and on graphs that no two colours suffice for."""

import pytest
import torch
from networks import SWEEPS, chain, start, triangle

import eqprop as ep
from eqprop import testing


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_a_synchronous_sweep_advances_two_interleaved_alternating_ones(depth):
    """After k alternating sweeps the first colour is where 2k - 1 synchronous ones bring it, the second where 2k do."""
    with torch.no_grad():
        scene, state = start(chain(depth))
        assert len(scene.colours) == min(depth, 2)
        for k in (1, 2, 3):
            found = ep.FixedSweeps(k, ep.alternating)(scene, state).state
            for colour, nodes in enumerate(scene.colours):
                sweeps = k if depth == 1 else 2 * k - 1 + colour
                expected = ep.FixedSweeps(sweeps, ep.synchronous)(scene, state).state
                for node in nodes:
                    torch.testing.assert_close(found[node], expected[node], rtol=0, atol=1e-14)


def test_orders_differ_along_the_way():
    with torch.no_grad():
        scene, state = start(triangle())
        ends = [sweep(scene, state)["b"] for sweep in SWEEPS]
    assert len(scene.colours) == 3
    gaps = [float((a - b).abs().max()) for i, a in enumerate(ends) for b in ends[:i]]
    assert sum(gap > 1e-3 for gap in gaps) >= 4


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_order_settles_a_triangle(sweep):
    testing.check_sweep(sweep, triangle(scale=0.5))


@pytest.mark.parametrize("sweep", [ep.alternating, ep.settling.forward_order, ep.settling.backward_order])
@pytest.mark.parametrize("seed", range(4))
def test_energy_never_rises_on_any_graph_when_no_two_neighbours_move_at_once(sweep, seed):
    with torch.no_grad():
        scene, state = start(triangle(ep.energy.centred_hard_sigmoid, scale=4.0, seed=seed))
        energies = []
        for _ in range(15):
            state = sweep(scene, state)
            energies.append(scene.energy(state))
    assert bool((torch.stack(energies).diff(dim=0) <= 1e-12).all())


def test_all_nodes_at_once_need_not_lower_the_energy():
    """Why the claim above leaves out the synchronous sweep: two strongly coupled units can swap signs for ever."""
    clip = ep.energy.Clip(1, -1, 1)
    nodes = {"x": ep.Node((1,)), "a": ep.Node((1,), clip), "b": ep.Node((1,), clip)}
    network = ep.Network(nodes, [ep.Synapse(p, q, ep.Dense((1,), (1,))) for p, q in ("xa", "ab")]).double()
    one = torch.ones(1, 1, dtype=torch.float64)
    with torch.no_grad():
        network.terms["a_b"].map.weight.fill_(5.0)
        scene = network.landscape(0 * one)
        high = {"a": one, "b": -one}
        swapped = ep.synchronous(scene, high)
        assert {n: float(v) for n, v in swapped.items()} == {"a": -1, "b": 1}
        assert float(scene.energy(swapped)) == float(scene.energy(high))
        assert float(scene.energy(ep.alternating(scene, high))) < float(scene.energy(high))


def test_leaky_synchronous_sweeps_are_eulers_steps_of_leaky_units():
    """From rest, a unit of constant drive a is at r(a) (1 - (1 - rate)^k) after k of them."""
    network = chain(1)
    with torch.no_grad():
        scene, _ = start(network)
        end = scene.step(scene.zeros(), ["layer1"])["layer1"]
        for k in (1, 7):
            found = ep.FixedSweeps(k, ep.settling.Leaky(0.3))(scene, scene.zeros()).state["layer1"]
            torch.testing.assert_close(found, (1 - 0.7**k) * end, rtol=0, atol=1e-14)
        scene, state = start(triangle())
        for sweep in (ep.synchronous, ep.settling.forward_order):
            whole = sweep(scene, state)
            for node, value in ep.settling.Leaky(1.0, sweep)(scene, state).items():
                torch.testing.assert_close(value, whole[node], rtol=0, atol=1e-15)
    for rate in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ep.InputError, match="rate"):
            ep.settling.Leaky(rate)


def test_units_of_different_time_constants_rest_where_all_do():
    with torch.no_grad():
        scene, state = start(triangle(scale=0.5))
        spread, even = (ep.settling.Leaky(0.5, spread=each) for each in (0.4, 0.0))
        one, other = (sweep(scene, state) for sweep in (spread, even))
        for node, before in state.items():
            rates = (one[node] - before) / (other[node] - before) * 0.5
            torch.testing.assert_close(rates, rates[:1].expand_as(rates))  # a unit has its own in every example
            assert float(rates.min()) < 0.45 or float(rates.max()) > 0.55
        ends = [ep.FixedSweeps(400, sweep)(scene, state).state for sweep in (spread, even)]
        for node, value in ends[0].items():
            torch.testing.assert_close(value, ends[1][node], rtol=0, atol=1e-12)
        nodes = {"a": ep.Node((40000,), ep.identity)}
        wide = ep.Network(nodes, [ep.Bias("a", (40000,))], clamped=()).double()
        scene = wide.landscape(torch.zeros(1, 0, dtype=torch.float64))
        moved = ep.settling.Leaky(0.1, spread=0.2)(scene, scene.zeros())["a"][0] / wide.couplings["a_bias"].bias
        logs = (moved / 0.1).log()
    assert float(logs.mean()) == pytest.approx(0, abs=0.004)
    assert float(logs.std()) == pytest.approx(0.2, rel=0.02)
    with pytest.raises(ep.InputError, match="spread"):
        ep.settling.Leaky(0.5, spread=-0.1)
