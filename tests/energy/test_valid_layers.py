"""Which layers are valid inside an energy: the table of docs/depth.md, row by row."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import eqprop as ep
from eqprop import testing
from eqprop.energy import ModuleMap
from eqprop.models import standardise_weights

IMAGE = (3, 6, 6)
PAGE = Path(__file__).parents[2] / "docs" / "depth.md"
VALID = {
    "convolution": nn.Conv2d(3, 4, 3, stride=2, bias=False),
    "average pool": nn.AvgPool2d(2),
    "upsampling": nn.Upsample(scale_factor=2, mode="bilinear"),
    "max pool": nn.MaxPool2d(2),
    "group normalisation": nn.GroupNorm(1, 3),
    "nonlinear module": nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()),
    "batch normalisation that is frozen": nn.BatchNorm2d(3).eval(),
    "weight normalisation": parametrizations.weight_norm(nn.Conv2d(3, 4, 3, bias=False)),
    "pruning": prune.l1_unstructured(nn.Conv2d(3, 4, 3, bias=False), "weight", 0.5),
}


def synapse(module):
    up = ModuleMap(module, IMAGE)
    return ep.Synapse("a", "b", up), {"a": IMAGE, "b": up.out_shape}


@pytest.mark.parametrize("name", VALID)
def test_a_valid_layer_has_an_energy_and_exact_messages(name):
    coupling, shapes = synapse(VALID[name])
    testing.check_coupling(coupling.double(), shapes)


@pytest.mark.parametrize(("module", "why"), [(nn.BatchNorm2d(3), "mixes the examples"), (nn.Dropout(0.5), "is random")])
def test_an_invalid_layer_is_refused(module, why):
    with pytest.raises(ep.InputError, match=why):
        synapse(module.train())


def test_a_unit_whose_response_falls_has_no_energy():
    class Gelu(ep.Unit):
        def response(self, drive):
            return nn.functional.gelu(drive)

        def potential(self, state):
            return state.square() / 2

    with pytest.raises(AssertionError):
        testing.check_unit(Gelu())


def residual(standardise):
    nodes = {name: ep.Node((8,), ep.tanh) for name in ("a", "b", "c")}
    edges = [("x", "a", ep.Dense), ("a", "b", ep.Dense), ("a", "c"), ("b", "c", ep.Dense)]
    network = ep.graph({"x": (5,)} | nodes, edges, partial(ep.ReadoutCrossEntropy, classes=3), 0.3)
    if standardise:
        standardise_weights(network)
    return network.double()


@pytest.mark.parametrize("standardise", [False, True])
def test_a_residual_network_learns_by_the_exact_gradient(standardise):
    torch.manual_seed(0)
    network = residual(standardise)
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 3
    settled = ep.UntilConverged(1e-12, 500)
    estimators = ep.InfinitesimalNudge(settled, settled, damping=0.0), ep.ImplicitDifferentiation(settled)
    found = [
        torch.autograd.grad(ep.Equilibrium(network, each).loss(x, y), list(network.parameters())) for each in estimators
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_the_table_has_these_rows():
    rows = re.findall(r"^\| ([^|]+) \| (yes|no) \|", PAGE.read_text(), re.M)
    told = {name.lower(): valid for name, valid in rows}
    for name in VALID:
        assert any(name in row and valid == "yes" for row, valid in told.items()), name
    for name in ("batch normalisation in training", "dropout as a module", "gelu"):
        assert any(name in row and valid == "no" for row, valid in told.items()), name
