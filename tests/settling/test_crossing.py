"""How many sweeps a signal needs to cross a network: against the signal itself, on chains and on graphs with skips."""

import itertools
from functools import wraps

import pytest
import torch
from test_sweeps import SWEEPS, chain, start, triangle

import eqprop as ep
from eqprop.energy.couplings import Field
from eqprop.settling import Leaky, backward_order, crossing, forward_order


def with_skips():
    """A chain of nine nodes, and edges that skip over three of them each."""
    torch.manual_seed(0)
    names = [f"layer{n}" for n in range(1, 10)]
    nodes = {"x": ep.Node((3,)), **{n: ep.Node((4,), ep.tanh) for n in names}}
    pairs = [("x", "layer1"), *itertools.pairwise(names), ("layer1", "layer5"), ("layer5", "layer9")]
    return ep.Network(nodes, [ep.Synapse(p, q, ep.Dense(nodes[p].shape, (4,))) for p, q in pairs]).double()


def apart():
    """Two chains that only the data connect."""
    nodes = {"x": ep.Node((3,)), **{n: ep.Node((4,), ep.tanh) for n in ("a", "b", "p", "q", "r")}}
    pairs = [("x", "a"), ("a", "b"), ("x", "p"), ("p", "q"), ("q", "r")]
    return ep.Network(nodes, [ep.Synapse(p, q, ep.Dense(nodes[p].shape, (4,))) for p, q in pairs]).double()


NETWORKS = {
    **{f"chain of {n}": lambda n=n: chain(n) for n in (1, 2, 3, 4, 7)},
    "triangle": triangle,
    "skips": with_skips,
    "two chains": apart,
}


def seen(scene, sweep):
    """The sweeps after which a force on any node, one at a time, has moved every node that it ever moves."""
    worst = 0
    for node in scene.nodes:
        rest = scene.zeros()
        pushed = scene.with_term("push", Field(node, torch.ones_like(rest[node])))
        plain, moved, counts = dict(rest), dict(rest), {}
        for count in range(1, 30):
            plain, moved = sweep(scene, plain), sweep(pushed, moved)
            for other in moved:
                if not torch.equal(moved[other], plain[other]):
                    counts.setdefault(other, count)
        worst = max(worst, *counts.values())
    return worst


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
@pytest.mark.parametrize("sweep", SWEEPS)
def test_it_is_what_a_signal_takes(make, sweep):
    with torch.no_grad():
        scene, _ = start(make())
        assert crossing(scene, sweep) == seen(scene, sweep)


@pytest.mark.parametrize("depth", [1, 2, 3, 8, 40])
def test_on_chains(depth):
    scene, _ = start(chain(depth))
    assert crossing(scene, ep.synchronous) == crossing(scene, forward_order) == crossing(scene, backward_order) == depth
    assert crossing(scene, ep.alternating) == depth // 2 + 1


def test_leaky_and_wrapped_sweeps_carry_as_far_as_what_they_call_and_others_one_edge():
    scene, _ = start(chain(8))

    @wraps(ep.alternating)
    def wrapped(landscape, state):
        return ep.alternating(landscape, state)

    assert crossing(scene, Leaky(0.5, ep.alternating)) == crossing(scene, wrapped) == crossing(scene, ep.alternating)
    assert crossing(scene, lambda landscape, state: ep.alternating(landscape, state)) == 8
