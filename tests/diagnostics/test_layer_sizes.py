"""The size of the nudge's effect on each layer, against differences of settled states; and in `eqprop check`."""

import json
from pathlib import Path

import pytest
import torch
from networks import shrunk

import eqprop as ep
from eqprop import diagnostics
from eqprop.cli import main
from eqprop.energy import Nudge

REST = ep.FixedSweeps(300)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_they_are_the_changes_of_settled_states(gain):
    torch.manual_seed(0)
    layers = [ep.DenseLayer(n, ep.tanh) for n in (8, 7, 4)]
    network = shrunk(ep.chain((6,), layers, ep.SquaredError, feedback_gain=gain))
    x, y, beta = torch.randn(5, 6), torch.arange(5) % 4, 1e-4
    with torch.no_grad():
        scene = network.landscape(x)
        free = REST(scene, scene.zeros()).state
        pair = [
            REST(scene.with_term("up", Nudge(network.loss, y, torch.full((5,), sign * beta))), free).state
            for sign in (1, -1)
        ]
    for i, each in enumerate(diagnostics.layer_sizes(network, x, y)):
        moved = (pair[0][each.node] - pair[1][each.node]) / (2 * beta)
        assert each.activity == pytest.approx(float(free[each.node].square().mean().sqrt()), rel=1e-6)
        assert each.displacement == pytest.approx(float(moved.square().mean().sqrt()), rel=1e-5)
        assert each.amplification == pytest.approx(gain ** -(2 - i))
        assert each.contrast == pytest.approx(each.displacement * each.amplification)


def test_check_prints_and_writes_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    command = ["check", "digits-deep", "--depth", "3", "--images", "4", "--train_images", "60", "--pictures", "false"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "What a small nudge does to each layer" in capsys.readouterr().out
    found = json.loads(Path(tmp_path, "check.json").read_text())["layers"]
    assert [each["node"] for each in found] == ["layer1", "layer2", "layer3"]
    assert [each["amplification"] for each in found] == pytest.approx([0.03**-2, 0.03**-1, 1.0])
    assert found[0]["displacement"] < 0.01 * found[2]["displacement"]
