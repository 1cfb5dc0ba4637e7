"""``eqprop check``, from the command line to its files."""

import json
from pathlib import Path

import pytest
import torch
from diagnostics import alignment
from interrupted import without_pages

import eqprop as ep
from eqprop.cli import main
from eqprop.diagnostics.check import STENCILS, standard

RECIPE = """
import torch
import eqprop as ep
from eqprop.tasks import Batches, Crop, Images, Normalise
from eqprop.training.loop import Experiment


def tiny(beta: float = 0.2, separate: bool = False, seed: int = 0) -> Experiment:
    g = torch.Generator().manual_seed(1)
    images = Images(torch.randint(0, 256, (30, 1, 4, 4), generator=g, dtype=torch.uint8), torch.arange(30) % 3, 3)
    layers = [ep.ConvLayer(3, pool=None), ep.ConvLayer(4)]
    network = ep.chain((1, 4, 4), layers, lambda n, s: ep.ReadoutCrossEntropy(n, s, 3), separate_feedback=separate)
    sweeps = ep.FixedSweeps(10)
    rule = ep.learning.kolen_pollack if separate else ep.contrastive
    coin = ep.learning.RandomSign(beta)
    estimator = ep.EquilibriumPropagation(coin, sweeps, sweeps, rule, ep.learning.forms.states)
    model = ep.Equilibrium(network, estimator)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    plain = Normalise((0.0,), (1.0,))
    train = Batches(images, 10, plain, (Crop(1),))
    return Experiment(model, optimizer, train, Batches(images, 20, plain, shuffle=False), 1)
"""
PICTURES = {"through_time", "bias", "distance", "convergence", "noise"}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(RECIPE)
    return "mine.py:tiny"


def rows(folder):
    found = json.loads(Path(folder, "check.json").read_text())
    return found, {row["estimator"]: row for row in found["comparison"]["rows"] if row["parameter"] == "all"}


def test_a_recipe_is_checked_with_its_options(recipe, capsys):
    assert main(["check", recipe, "--images", "4", "--beta", "0.3", "--out", "out", "--pictures", "false"]) == 0
    found, by_name = rows("out")
    assert set(by_name) == {
        *("recipe's own", "one-sided 0.3", "symmetric 0.3", "five-point 0.3"),
        *("infinitesimal", "truncated BPTT 10"),
    }
    assert by_name["infinitesimal"]["error"] < 1e-4
    assert by_name["symmetric 0.3"]["cosine"] > 0.9
    assert (found["images"], found["beta"], len(found["equilibria"]["counts"])) == (4, 0.3, 4)
    order = found["suggestion"]["symmetric"]["order"]
    assert 0 < order < 3, "that of the network itself, whose clips are no smooth functions"
    assert not list(Path("out").glob("*.png"))
    text = capsys.readouterr().out
    assert "tiny, initial weights" in text
    for word in (
        "Verdict: ",
        "recipe's own",
        "truncated BPTT 10",
        "layer2_bias.bias",
        "Equilibria:",
        "symmetric is best at beta",
    ):
        assert word in text


def test_pictures_and_their_numbers(recipe):
    assert main(["check", recipe, "--images", "3", "--nudge", "0.4", "--out", "out"]) == 0
    found, by_name = rows("out")
    assert "symmetric 0.4" in by_name
    assert {path.stem for path in Path("out").glob("*.png")} == PICTURES
    for path in Path("out").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not [path for path in Path("out").iterdir() if path.name.startswith(".")]
    as_it_is, twin = found["bias"]
    assert {name: round(curve["order"]) for name, curve in found["bias"][twin].items()} == {
        "one-sided": 1,
        "symmetric": 2,
        "five-point": 4,
        "holomorphic 6": 6,
    }
    assert set(found["bias"][as_it_is]) == {"one-sided", "symmetric", "five-point"}  # clips follow no complex nudge
    assert set(found["through_time"]) == {as_it_is, twin}
    assert max(found["through_time"][twin]["relative_distance"].values()) < 0.1
    assert found["angles"] == {}, "nothing is trained for a picture"
    assert found["suggestion"]["symmetric"]["order"] == pytest.approx(found["bias"][as_it_is]["symmetric"]["order"])
    residuals = next(iter(found["convergence"].values()))["layer1"]
    assert residuals[-1] < 1e-6 < residuals[0]


def test_a_trained_run_is_checked_where_it_lies(recipe, monkeypatch, capsys):
    without_pages(monkeypatch)
    assert main(["train", recipe, "--separate", "true", "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["check", "run", "--images", "2", "--checkpoint", "last"]) == 0
    assert "tiny, last weights (epoch 1)" in capsys.readouterr().out
    found, by_name = rows("run/check")
    assert found["angles"].keys() == {"layer1_layer2"}  # those that the run has logged
    assert by_name["infinitesimal"]["problem"] == ""
    assert {path.stem for path in Path("run/check").glob("*.png")} == PICTURES | {"angles"}


def test_without_energy_it_has_the_rules_for_separate_feedback(recipe, capsys):
    arguments = ["check", recipe, "--separate", "true", "--images", "4", "--beta", "0.01"]
    assert main([*arguments, "--out", "out", "--pictures", "false"]) == 0
    by_name = rows("out")[1]
    for name in ("asymmetric EP 0.01", "dyadic EP 0.01"):
        assert by_name[name]["cosine"] > 0.999
        assert by_name[name]["cosine"] > by_name["vector field 0.01"]["cosine"]
    assert by_name["Kolen-Pollack 0.01"]["problem"] == ""
    assert by_name["infinitesimal"]["error"] == pytest.approx(by_name["vector field 0.01"]["error"], abs=0.02)
    assert "Take the teacher corrected" in " ".join(capsys.readouterr().out.split())


def test_of_a_corrected_run_each_row_is_corrected(recipe):
    source = Path("mine.py").read_text().replace("sweeps, rule,", "sweeps, ep.vector_field,")
    Path("mine.py").write_text(source.replace("forms.states)", "forms.states, ep.learning.corrected)"))
    arguments = ["check", recipe, "--separate", "true", "--images", "3", "--beta", "0.05"]
    assert main([*arguments, "--out", "out", "--pictures", "false"]) == 0
    by_name = rows("out")[1]
    assert by_name["infinitesimal"]["error"] < 1e-3
    assert by_name["symmetric 0.05"] | {"estimator": ""} == by_name["asymmetric EP 0.05"] | {"estimator": ""}
    assert by_name["vector field 0.05"]["cosine"] < by_name["symmetric 0.05"]["cosine"]


def test_without_an_argument_it_is_the_digits(recipe, capsys):
    assert main(["check", "--images", "2", "--pictures", "false"]) == 0
    assert "digits, initial weights" in capsys.readouterr().out
    (folder,) = Path("runs").glob("check-digits-*")
    assert (folder / "check.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing-of-the-sort"], "There is no recipe 'nothing-of-the-sort'"),
        (["RECIPE", "--images", "0"], "--images must be int >= 1 | None, not 0"),
        (["RECIPE", "--images", "31"], "images 31: the training set has 30"),
        (["RECIPE", "--read_noise", "-1"], "read_noise -1"),
        (["RECIPE", "--reads", "0"], "reads 0: "),
        (["RECIPE", "--nudge", "inf"], "nudge"),
        (["RECIPE", "--wrong", "1"], "wrong"),
        (["."], "is not the folder of a run"),
    ],
)
def test_what_does_not_fit_is_one_line(recipe, arguments, words, capsys):
    given = [recipe if each == "RECIPE" else each for each in arguments]
    assert main(["check", *given, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not Path("out").exists()


def test_a_folder_that_cannot_be_made_is_one_line(recipe, capsys):
    assert main(["check", recipe, "--images", "2", "--out", "mine.py"]) == 2
    assert "Cannot make the folder 'mine.py'" in capsys.readouterr().err


def test_standard_estimators_keep_the_runs_own_solvers():
    own = ep.EquilibriumPropagation(
        ep.symmetric(0.5), ep.FixedSweeps(7), ep.FixedSweeps(3), form=ep.learning.forms.states
    )
    network, x = ep.chain((4,), [ep.DenseLayer(3, ep.tanh)], ep.SquaredError), torch.randn(2, 4)
    found = standard(network, x, own, 0.2)
    for name, make in STENCILS.items():
        each = found[f"{name} 0.2"]
        assert (each.free, each.nudged, each.form, each.nudging) == (own.free, own.nudged, own.form, make(0.2))
    assert found["truncated BPTT 3"].free == own.free
    fast = ep.InfinitesimalNudge(ep.FromFeedforward(ep.UntilConverged(1e-3, 50)))
    assert standard(network, x, fast, 0.1)["symmetric 0.1"].free == fast.free
    apart = ep.chain((4,), [ep.DenseLayer(3), ep.DenseLayer(2)], ep.SquaredError, separate_feedback=True)
    assert isinstance(standard(apart, x, own, 0.1)["infinitesimal"].response, ep.FixedSweeps)


def test_angles_start_at_right_angles_and_kolen_pollack_brings_them_down():
    state = torch.get_rng_state()
    found = alignment.trained_angles(epochs=3)
    assert torch.equal(state, torch.get_rng_state())
    by_rule = {name.split()[0]: each["layer1_layer2"] for name, each in found.items()}
    assert {len(angles) for angles in by_rule.values()} == {4}
    assert by_rule["vector_field"][0] == by_rule["kolen_pollack"][0] == pytest.approx(90, abs=3)
    assert by_rule["kolen_pollack"][-1] < 60
    assert by_rule["kolen_pollack"][-1] < by_rule["vector_field"][-1] - 10
