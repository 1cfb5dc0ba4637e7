"""Initial weights scaled so that activity stays in range at any depth, in chains and other graphs."""

from functools import partial

import pytest
import torch
from networks import skip

import eqprop as ep
from eqprop.models import scale_weights
from eqprop.settling.starts import feedforward, upstream

pytestmark = pytest.mark.usefixtures("double")


def drives(network, x):
    """Each node's drive in the feedforward pass."""
    with torch.no_grad():
        scene = network.landscape(x)
        state = feedforward(scene, scene.zeros())
        return {node: heard.drive(state, node) for node, heard in upstream(scene, scene.nodes).items()}


def deep(unit, pool=None):
    layers = [ep.ConvLayer(6, pool=pool, activation=unit), *(ep.ConvLayer(6, pool=None, activation=unit),) * 9]
    return ep.chain((2, 8, 8), layers, partial(ep.ReadoutCrossEntropy, classes=4))


@pytest.mark.parametrize(
    "make", [lambda: deep(ep.tanh), lambda: deep(ep.energy.half_hard_sigmoid, ep.MaxPool(2)), skip]
)
@pytest.mark.parametrize("size", [0.5, 1.0])
def test_every_drive_has_the_size_that_was_asked_for(make, size):
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    x = torch.randn(50, *network.nodes[network.input].shape)
    before = {name: each.detach().clone() for name, each in network.named_parameters()}
    scale_weights(network, x, size)
    for drive in drives(network, x).values():
        assert float(drive.std()) == pytest.approx(size, rel=1e-6)
    for name, each in network.named_parameters():  # one factor for all weights of a tensor, and no other change
        ratio = each.detach() / before[name]
        assert name.endswith("bias") or float(ratio.min()) == pytest.approx(float(ratio.max()))


def test_biases_and_the_read_out_stay():
    network = deep(ep.tanh)
    kept = {name: each.clone() for name, each in network.named_parameters() if name.endswith("bias") or "loss" in name}
    scale_weights(network, torch.randn(50, 2, 8, 8))
    for name, each in network.named_parameters():
        assert name not in kept or torch.equal(each, kept[name])
    assert len(kept) > 10


def test_the_last_layer_then_hears_the_data():
    """Without it the activity of ten layers no longer depends on the image."""
    torch.manual_seed(0)
    network, x = deep(ep.tanh), torch.randn(50, 2, 8, 8)
    lost = float(drives(network, x)["layer10"].std(0).mean())
    scale_weights(network, x)
    assert lost < 0.02
    assert float(drives(network, x)["layer10"].std(0).mean()) > 0.5


def test_drives_that_no_factor_can_scale_are_named():
    network = deep(ep.tanh)
    with torch.no_grad():
        network.terms["layer3_layer4"].map.weight.zero_()
        network.terms["layer4_bias"].bias.zero_()
    with pytest.raises(ep.InputError, match="'layer4'"):
        scale_weights(network, torch.randn(50, 2, 8, 8))
