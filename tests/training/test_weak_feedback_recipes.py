"""The recipe for digits at any depth: what its options mean, and that twelve layers learn."""

import pytest
import torch

import eqprop as ep
from eqprop.recipes.small import digits_deep
from eqprop.settling import Directed, backward_order, forward_order


def trained(run, steps):
    """The share of test images that are right after so many steps."""
    batches = (pair for epoch in range(run.epochs) for pair in run.train.epoch(epoch))
    for _, (x, y) in zip(range(steps), batches, strict=False):
        run.optimizer.zero_grad()
        run.model.loss(x, y).backward()
        run.optimizer.step()
        run.scheduler.step()
    with torch.no_grad():
        right = [(run.model(x).argmax(1) == y).float() for x, y in run.test.epoch(0)]
    return float(torch.cat(right).mean())


def test_options_set_the_network_and_the_sweeps():
    run = digits_deep(depth=4, width=0.25, feedback_gain=0.1, free_sweeps=3, response_sweeps=2)
    network, estimator = run.model.network, run.model.estimator
    assert list(network.free) == ["layer1", "layer2", "layer3", "layer4"]
    assert [node.shape for node in network.free.values()] == [(64,)] * 4
    assert {term.feedback_gain for term in network.terms.values() if isinstance(term, ep.Synapse)} == {0.1}
    assert estimator.free == Directed(ep.FixedSweeps(3, forward_order))
    assert estimator.response == Directed(ep.FixedSweeps(2, backward_order))


@pytest.mark.parametrize("depth", [1, 12])
def test_drives_begin_with_the_size_that_was_asked_for(depth):
    run = digits_deep(depth=depth, activity=0.8)
    states = run.model.settle(run.train.sample(200)[0]).state
    drives = torch.atanh(states[f"layer{depth}"].double().clamp(-1 + 1e-6, 1 - 1e-6))
    assert float(drives.std()) == pytest.approx(0.8, rel=0.15)  # feedback and biases have a small part in it


def test_twelve_layers_learn_and_their_first_weights_move():
    torch.manual_seed(0)
    run = digits_deep(depth=12, epochs=4)
    first = run.model.network.terms["input_layer1"].map.weight.detach()
    before = first.clone()
    assert trained(run, 180) > 0.9
    assert float((first - before).norm() / before.norm()) > 0.05
