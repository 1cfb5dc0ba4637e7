"""Units without a closed-form response, and the command that checks their gradients."""

import json
from pathlib import Path

import pytest
import torch
from pages import code, section

import eqprop as ep
from eqprop import testing
from eqprop.cli import main

TITLE = "A unit without a closed-form response"
RECIPE = """
from eqprop.tasks import Batches, Images, Normalise
from eqprop.training.loop import Experiment


def mine(beta: float = 0.01) -> Experiment:
    g = torch.Generator().manual_seed(1)
    images = Images(torch.randint(0, 256, (12, 1, 2, 2), generator=g, dtype=torch.uint8), torch.arange(12) % 3, 3)
    torch.manual_seed(0)
    nodes = {"x": ep.Node((1, 2, 2)), "h": ep.Node((6,), Oscillator()), "y": ep.Node((3,), Oscillator())}
    network = ep.Network(nodes, [Flat("x", "h", (4, 6)), Phases("h", "y", (6, 3))], ep.SquaredError("y", (3,)))
    solver = ep.FixedSweeps(150)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(beta), solver, solver))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    batches = Batches(images, 6, Normalise((0.5,), (0.25,)))
    return Experiment(model, optimizer, batches, batches, 1)


class Flat(Phases):
    def energy(self, *states):
        return super().energy(states[0].flatten(1), states[1])
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(code(TITLE) + RECIPE)
    return "mine.py:mine"


def test_the_check_of_a_recipe_of_oscillators(recipe, capsys):
    assert main(["check", recipe, "--images", "2", "--out", "out", "--pictures", "false"]) == 0
    rows = json.loads(Path("out", "check.json").read_text())["comparison"]["rows"]
    whole = {row["estimator"]: row for row in rows if row["parameter"] == "all"}
    assert not [row["problem"] for row in whole.values() if row["problem"]]
    assert whole["recipe's own"]["error"] < 0.01
    assert whole["symmetric 0.01"]["error"] < 0.01
    assert whole["infinitesimal"]["cosine"] > 0.999
    assert "Left out" not in capsys.readouterr().out


def test_a_step_that_is_too_long_is_noticed():
    oscillator = section(TITLE).Oscillator

    class Hasty(oscillator):
        rate = 5.0

    testing.check_unit(oscillator(3.0))
    with pytest.raises(AssertionError, match="too long"):
        testing.check_unit(Hasty())


@pytest.mark.parametrize("teacher", ["clamp", "soft_clamp"])
def test_a_teacher_that_wants_a_response_says_so(teacher):
    network = section(TITLE).network
    solver = ep.FixedSweeps(50)
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.1), solver, solver, teacher=getattr(ep.learning, teacher))
    with pytest.raises(ep.InputError, match="response"):
        ep.Equilibrium(network, estimator, "ignore").loss(torch.randn(2, 4), torch.arange(2)).backward()
