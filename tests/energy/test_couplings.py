"""Couplings as terms of an energy: held, stacked, summed; and losses as what they nudge with."""

import itertools

import pytest
import torch
from terms import Inhibition, ThreeBody
from torch.nn import functional as F

import eqprop as ep
from eqprop.energy.losses import Nudge

UNITS = (5,)
NODES = {n: ep.Node(UNITS, ep.tanh) for n in "abc"}


def states(count, batch=3):
    torch.manual_seed(0)
    return torch.randn(count, batch, *UNITS, dtype=torch.float64)


@pytest.mark.parametrize("held", [h for n in (1, 2) for h in itertools.combinations("abc", n)], ids="".join)
def test_a_term_of_three_nodes_is_the_same_with_any_of_them_held(held):
    term = ThreeBody()
    whole = dict(zip("abc", states(3), strict=True))
    part = term.clamp({n: whole[n] for n in held})
    assert part.nodes == tuple(n for n in "abc" if n not in held)
    left = [whole[n] for n in part.nodes]
    torch.testing.assert_close(part.energy(*left), term.energy(*whole.values()))
    torch.testing.assert_close(part.contrast(*left), term.contrast(*whole.values()))
    for node in part.nodes:
        torch.testing.assert_close(part.potential(node, *left), term.potential(node, *whole.values()))
        torch.testing.assert_close(part.drive(node, *left), term.drive(node, *whole.values()))
        twice = part.select(torch.arange(3).repeat(2)).drive(node, *(torch.cat([s, s]) for s in left))
        torch.testing.assert_close(twice, torch.cat([term.drive(node, *whole.values())] * 2))


def test_a_synapse_whose_pre_is_held_differs_from_its_field_by_nothing():
    synapse = ep.Synapse("a", "b", ep.Dense(UNITS, UNITS)).double()
    a, b = states(2)
    field = synapse.clamp({"a": a})
    torch.testing.assert_close(field.energy(b), synapse.energy(a, b))
    torch.testing.assert_close(field.drive("b", b), synapse.drive("b", a, b))
    torch.testing.assert_close(synapse.clamp({"b": b}).energy(a), synapse.energy(a, b))


@pytest.mark.parametrize("gain", [0.0, 0.3, 1.0])
def test_feedback_gain_scales_what_goes_back_and_nothing_else(gain):
    plain = ep.Synapse("a", "b", ep.Dense(UNITS, UNITS))
    gained = ep.Synapse("a", "b", plain.map, gain)
    for synapse in (plain.double(), gained):
        synapse.bind(NODES)
    a, b = states(2)
    torch.testing.assert_close(gained.drive("a", a, b), gain * plain.drive("a", a, b))
    torch.testing.assert_close(gained.drive("b", a, b), plain.drive("b", a, b))
    assert gained.symmetric == (gain == 1)


def test_separate_feedback_is_a_synapse_where_both_maps_are_one():
    up, down = ep.Dense(UNITS, UNITS).double(), ep.Dense(UNITS, UNITS).double()
    down.load_state_dict(up.state_dict())
    apart, tied = ep.energy.SeparateFeedback("a", "b", up, down), ep.Synapse("a", "b", up)
    for coupling in (apart, tied):
        coupling.bind(NODES)
    a, b = states(2)
    for node in "ab":
        torch.testing.assert_close(apart.drive(node, a, b), tied.drive(node, a, b))
    torch.testing.assert_close(apart.contrast(a, b), 2 * tied.contrast(a, b))
    assert [name for name, *_ in apart.pairs()] == ["weight"]
    with pytest.raises(ep.InputError, match="held at data"):
        apart.clamp({"a": a})


def test_lateral_inhibition_is_that_of_its_closed_form():
    (a,) = states(1)
    drive = Inhibition().drive("a", a)
    torch.testing.assert_close(drive, -0.2 * (a.sum(1, keepdim=True) - a), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("coupling", [Inhibition(), ThreeBody()], ids=lambda c: type(c).__name__)
def test_a_users_terms_do_not_mix_examples(coupling):
    at = list(states(len(coupling.nodes)))
    for i in range(3):
        torch.testing.assert_close(coupling.energy(*(s[i : i + 1] for s in at))[0], coupling.energy(*at)[i])


LABELS = torch.tensor([0, 4, 2])
LOSSES = [
    ep.SquaredError("a", UNITS),
    ep.CrossEntropy("a", UNITS),
    ep.ReadoutCrossEntropy("a", UNITS, 5),
    ep.energy.WeightedSum([ep.SquaredError("a", UNITS), ep.CrossEntropy("a", UNITS)], [0.5, -2.0]),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda x: type(x).__name__)
def test_losses_do_not_mix_examples(loss):
    loss = loss.double()
    (a,) = states(1)
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(loss(LABELS[one], a[one])[0], loss(LABELS, a)[i])
        torch.testing.assert_close(loss.force("a", LABELS[one], a[one])[0], loss.force("a", LABELS, a)[i])


@pytest.mark.parametrize("loss", LOSSES, ids=lambda x: type(x).__name__)
def test_a_nudge_scales_each_example_by_its_own_beta(loss):
    loss, (a,) = loss.double(), states(1)
    scale = torch.tensor([0.5, 0.0, -2.0], dtype=torch.float64)
    nudge = Nudge(loss, LABELS, scale)
    torch.testing.assert_close(nudge.energy(a), scale * loss(LABELS, a))
    torch.testing.assert_close(nudge.drive("a", a), scale[:, None] * loss.force("a", LABELS, a))


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_cross_entropies_survive_large_scores(size):
    (a,) = size * states(1)
    loss = ep.CrossEntropy("a", UNITS)
    assert bool(loss(LABELS, a).isfinite().all())
    force = loss.force("a", LABELS, a)
    torch.testing.assert_close(force.sum(1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(force, F.one_hot(LABELS, 5) - a.softmax(1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropies_smooth_labels_as_pytorch_does(smoothing):
    (a,) = states(1)
    inside, outside = ep.CrossEntropy("a", UNITS, smoothing), ep.ReadoutCrossEntropy("a", UNITS, 6, smoothing).double()
    for loss in (inside, outside):
        theirs = F.cross_entropy(loss.scores(a), LABELS, reduction="none", label_smoothing=smoothing)
        torch.testing.assert_close(loss(LABELS, a), theirs)


def test_labels_and_their_one_hot_values_are_the_same_target():
    loss, (a,) = ep.SquaredError("a", UNITS), states(1)
    values = F.one_hot(LABELS, 5).double()
    torch.testing.assert_close(loss(LABELS, a), loss(values, a))
    torch.testing.assert_close(loss.force("a", LABELS, a), loss.force("a", values, a))
