"""What a machine adds to an estimate, which of its faults dominates, and what ``eqprop check --substrate`` says."""

import json
import math
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from interrupted import without_pages

import eqprop as ep
from eqprop import diagnostics, substrates as s
from eqprop.cli import main
from eqprop.diagnostics.bias import divided
from eqprop.diagnostics.machine import Added, MachineErrors
from eqprop.diagnostics.verdict import HARMLESS, machine_verdict
from eqprop.substrates.laws import told

sys.path.insert(0, str(Path(__file__).parents[1] / "substrates"))
from faults import FAULTS

SETTLE = ep.FixedSweeps(30)
BETAS = (0.02, 2.56)


@cache
def example():
    torch.manual_seed(0)
    layers = [ep.DenseLayer(12, ep.tanh), ep.DenseLayer(8, ep.tanh), ep.DenseLayer(4, ep.identity)]
    network = ep.chain((6,), layers, ep.SquaredError).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.4 / math.sqrt(parameter.shape[-1]) if parameter.ndim == 2 else 0.1)
    return network, torch.randn(8, 6, dtype=torch.float64), torch.randn(8, 4, dtype=torch.float64)


def measured(machine, stencil=ep.symmetric, beta=0.1):
    network, x, y = example()
    return diagnostics.machine_errors(
        network.on(machine), x, y, ep.EquilibriumPropagation(stencil(beta), SETTLE, SETTLE)
    )


def said(machine, beta=0.1):
    return machine_verdict(measured(machine, beta=beta), {}, BETAS)


BY_BETA = {"WeightNoise", "UnitNoise", "LoopConverter", "ReadNoise", "ReadConverter", "ReadConverter at random"}
BY_BETA |= {"Droop", "NudgeLevels", "TwoCircuits"}
FIXED = {"WriteNoise", "FeedbackSpread", "MessageGains", "ReadSpread", "NudgeGain", "NudgeOffset", "UnequalNudges"}
IN_SITU = {"WeightSpread", "WeightRange", "StuckWeights", "Aged", "Wires", "UnitSpread"}


def test_every_fault_has_its_kind():
    assert set(FAULTS) == BY_BETA | FIXED | IN_SITU


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_told_by_its_law(name):
    """What differs between phases is divided by beta; what does not, is not; what is built in is the machine's own."""
    found = measured(FAULTS[name]).whole
    assert not found.problem
    if name in IN_SITU:
        assert found.error == 0 < found.moved
    elif name in BY_BETA:
        assert found.by_beta > found.fixed
    else:
        assert found.fixed > 2 * found.by_beta
    assert found.remedy == told(type(FAULTS[name]), "Remedy")


@pytest.mark.parametrize(("stencil", "by_beta"), [(ep.one_sided, True), (ep.symmetric, False)])
def test_the_stencil_is_the_estimators_own(stencil, by_beta):
    found = measured(s.NudgeOffset(0.1), stencil).whole
    assert (found.by_beta > found.fixed) == by_beta


@pytest.mark.parametrize(("size", "beta"), [(1e-3, 0.1), (4e-3, 0.1), (1e-3, 0.4)])
def test_noise_of_reads_is_as_large_as_the_number_says(size, beta):
    network, x, y = example()
    right = diagnostics.suggest_beta(
        network, x, y, lambda beta: ep.EquilibriumPropagation(ep.symmetric(beta), SETTLE, SETTLE), size
    )
    assert measured(s.ReadNoise(size), beta=beta).whole.by_beta == pytest.approx(right.noise(beta), rel=0.2)


def test_the_error_of_a_machine_is_that_of_its_estimate():
    """A fixed fault of the reader: with the error of the nudge it gives the distance from the exact gradient."""
    network, x, y = example()
    network = network.on(s.Together(s.UnitSpread(0.2), s.ReadSpread(0.3)))
    estimator = ep.EquilibriumPropagation(ep.symmetric(1e-3), SETTLE, SETTLE)
    found = diagnostics.machine_errors(network, x, y, estimator).whole
    assert found.own < 1e-3
    whole = diagnostics.compare(network, x, y, {"it": estimator}).of("it")
    assert found.error == pytest.approx(whole.error, rel=0.01)


def test_an_error_is_split_in_two():
    assert divided({0.1: math.hypot(3, 4), 0.05: math.hypot(2 * 3, 4)}) == pytest.approx((3, 4))
    assert divided({0.1: 2.0, 0.05: 1.0}) == (0.0, 2.0)
    assert divided({0.1: 2.0, 0.05: 9.0}) == (2.0, 0.0)


DOMINANT = {
    "noise beside a spread": (s.Together(s.WeightSpread(0.01), s.ReadNoise(0.05)), "ReadNoise", "a larger beta"),
    "in any order": (s.Together(s.ReadNoise(0.05), s.WeightSpread(0.01)), "ReadNoise", "a larger beta"),
    "within another": (s.Together(s.NudgeGain(0.01), s.Together(s.ReadNoise(0.05))), "ReadNoise", "a larger beta"),
    "two circuits": (
        s.Together(s.TwoCircuits(s.WeightSpread(0.1), s.WeightSpread(0.1, seed=1)), s.ReadNoise(1e-4)),
        "TwoCircuits",
        "one circuit for all phases",
    ),
    "feedback": (s.Together(s.ReadNoise(1e-4), s.FeedbackSpread(0.5)), "FeedbackSpread", "read from both sides"),
    "one of two of a class": (s.Together(s.ReadSpread(0.01), s.ReadSpread(0.6, seed=1)), "ReadSpread 2", "one reader"),
    "drift": (s.Together(s.Droop(0.05), s.UnitSpread(0.1, 0.1)), "Droop", "A B B A"),
}


@pytest.mark.parametrize("name", DOMINANT)
def test_the_fault_that_dominates_is_named(name):
    machine, fault, remedy = DOMINANT[name]
    text = said(machine)
    assert f"Verdict on the machine: {fault} dominates. Alone it adds" in text
    assert remedy in text.partition("Next: ")[0]


@pytest.mark.parametrize("machine", [s.UnitSpread(0.1, 0.1), s.Together(s.WeightSpread(0.1), s.StuckWeights(0.1))])
def test_what_is_built_in_needs_no_remedy(machine):
    text = said(machine)
    assert "good. Remedy: none needed when learning in situ" in text
    assert "weights that were learnt on another machine do not fit it" in text
    assert ("StuckWeights" in text) == isinstance(machine, s.Together), "it moves the gradient most"


def test_noise_too_small_to_matter_needs_no_remedy_either():
    assert said(s.ReadNoise(1e-5)).startswith("Verdict on the machine: good. Remedy: none needed")


NAMED = {
    "pcm": "none needed when learning in situ",
    "mismatch": "none needed when learning in situ",
    "converters": "ReadConverter, its only fault",
    "noisy-reads": "more reads, a larger beta",
    "noisy-weights": "the mean of many steps",
    "noisy-writes": "the mean of many steps",
    "stuck": "none needed when learning in situ",
    "two-circuits": "one circuit for all phases",
    "wires": "none needed when learning in situ",
}
"""The words that the verdict on each named substrate must have at a beta of 0.02."""


@pytest.mark.parametrize("name", [name for name in s.SUBSTRATES if name != "ideal"])
def test_every_named_substrate_has_a_verdict(name):
    assert NAMED[name] in said(s.find_substrate(name), beta=0.02)


class Plain(ep.energy.Substrate):
    """A user's own, without a law in its docstring."""

    def measured(self, state, reading):
        return {node: value + 0.1 * reading for node, value in state.items()}


class Broken(ep.energy.Substrate):
    """Remedy: repair it.

    Fails in use.
    """

    def unit(self, name, node):
        raise RuntimeError("no current")


def test_a_substrate_of_ones_own_is_measured_too():
    text = said(Plain())
    assert "Plain, its only fault, adds" in text
    assert "Remedy: a larger beta, or phases that share what differs between them" in text
    found = measured(s.Together(Broken(), s.ReadNoise(0.1)))
    assert found.parts[0].problem == "RuntimeError: no current"
    assert found.parts[1].by_beta > 0
    assert "not measured. RuntimeError: no current" in machine_verdict(found, {}, BETAS)


def test_one_that_counts_is_no_fault():
    assert "good. Remedy: none needed" in said(ep.physics.Counter())


def added(error, by_beta=True, worst=None, moved=0.0, own=0.0, name="A"):
    parts = (error, 0.0) if by_beta else (0.0, error)
    return Added(name, name, *parts, own, moved, error if worst is None else worst, "w", remedy=f"mend {name}")


def test_what_the_words_depend_on():
    def text(*parts, whole=None, suggestions=()):
        return machine_verdict(MachineErrors(0.1, whole or parts[0], parts), dict(suggestions), BETAS)

    assert "Next: B adds" in text(added(0.5), added(0.4, name="B"), whole=added(0.6))
    assert "Next" not in text(added(0.5), added(0.2, name="B"), whole=added(0.6))
    assert "All together add 0.9, more than the 0.5" in text(added(0.5), added(0.0, name="B"), whole=added(0.9))
    assert "The nudge and the settling are a larger error, 0.7" in text(added(0.5, own=0.7))
    assert "to a tensor's (w)" in text(added(0.01, worst=0.5))
    assert "good" not in text(added(0.01, worst=2 * HARMLESS)), "one tensor is enough"
    best = diagnostics.Suggestion(2, 1.0, 1.0)
    assert f"Best beta on this machine: {best.beta:.2g} (s)" in text(added(0.5), suggestions={"s": best}.items())
    assert "Best beta" not in text(added(0.5, by_beta=False), suggestions={"s": best}.items())
    far = diagnostics.Suggestion(2, 1e-4, 1.0)
    assert "No beta from 0.02 to 2.56 outweighs it" in text(added(0.5), suggestions={"s": far}.items())


def test_an_ideal_network_has_no_machine():
    network, x, y = example()
    with pytest.raises(ep.InputError, match="put it on a machine"):
        diagnostics.machine_errors(network, x, y, ep.EquilibriumPropagation(ep.symmetric(0.1), SETTLE, SETTLE))


def test_neither_the_machine_nor_a_generator_is_changed():
    network, x, y = example()
    machine = s.Together(s.ReadNoise(1e-2), s.WeightNoise(1e-2))
    coin = ep.learning.RandomSign(0.1)
    before = [each.get_state() for each in (*machine.generators(), coin.generator)], torch.get_rng_state()
    estimator = ep.EquilibriumPropagation(coin, SETTLE, SETTLE)
    one, two = (diagnostics.machine_errors(network.on(machine), x, y, estimator) for _ in range(2))
    assert one == two
    after = [each.get_state() for each in (*machine.generators(), coin.generator)], torch.get_rng_state()
    assert all(map(torch.equal, before[0], after[0]))
    assert torch.equal(before[1], after[1])


# -- the command --

RECIPE = """
import torch
import eqprop as ep
from eqprop.tasks import Arrays, Batches
from eqprop.training.loop import Experiment


def tiny(beta: float = 0.1, fast: bool = False) -> Experiment:
    g = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    examples = Arrays(torch.randn(20, 5, generator=g), torch.randn(20, 3, generator=g))
    network = ep.chain((5,), [ep.DenseLayer(6, ep.tanh), ep.DenseLayer(3, ep.identity)], ep.SquaredError)
    sweeps = ep.FixedSweeps(12)
    estimator = ep.EquilibriumPropagation(ep.symmetric(beta), sweeps, sweeps)
    if fast:
        estimator = ep.InfinitesimalNudge(sweeps)
    model = ep.Equilibrium(network, estimator)
    train, test = Batches(examples, 10), Batches(examples, 10, shuffle=False)
    return Experiment(model, torch.optim.SGD(network.parameters(), lr=0.05), train, test, 1)
"""
CHIP = """
from eqprop import substrates as s

chip = s.Together(s.WeightSpread(0.01), s.ReadNoise(0.05))
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("mine.py").write_text(RECIPE)
    Path("chip_of_test_machine.py").write_text(CHIP)
    return "mine.py:tiny"


def checked(capsys, *arguments):
    """The last words of ``eqprop check`` on one line, and its numbers."""
    capsys.readouterr()
    assert main(["check", *arguments, "--pictures", "false", "--images", "3", "--out", "out"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    return text, json.loads(Path("out/check.json").read_text())


@pytest.mark.parametrize("name", ["mismatch", "noisy-weights"])
def test_the_check_of_a_named_substrate_ends_with_its_verdict(recipe, capsys, name):
    text, found = checked(capsys, recipe, "--substrate", name)
    assert found["machine_verdict"] in text
    assert NAMED[name] in found["machine_verdict"]
    assert {row["reference"] for row in found["comparison"]["rows"]} == {"the machine's own", "the ideal network's"}
    assert not [row for row in found["comparison"]["rows"] if row["problem"]]
    assert "against the machine's own exact gradient" in text
    assert "against the ideal network's exact gradient" in text
    assert text.index("Equilibria:") < text.index("What the machine adds") < text.index("Verdict on the machine:")
    machine = s.SUBSTRATES[name]
    parts = machine.parts if isinstance(machine, s.Together) else (machine,)
    assert [part["name"] for part in found["machine"]["parts"]] == [type(part).__name__ for part in parts]


def test_the_ideal_substrate_has_none(recipe, capsys):
    text, found = checked(capsys, recipe, "--substrate", "ideal")
    assert (found["machine"], "machine_verdict" in found) == (None, False)
    assert "Verdict on the machine" not in text
    assert found["suggestion"]["symmetric"]["noise_constant"] > 0


def test_a_machine_of_ones_own_gets_its_best_beta(recipe, capsys):
    text, found = checked(capsys, recipe, "--substrate", "chip_of_test_machine.chip")
    assert "Verdict on the machine: ReadNoise dominates" in text
    best = min(found["suggestion"].values(), key=lambda each: each["error"])
    assert f"Best beta on this machine: {best['beta']:.2g}" in text
    assert "This machine, 3 images: symmetric is best at beta" in text
    assert "disturbed by the machine. " in found["verdict"]
    assert best["beta"] > 0.1, "the recipe's"


def test_an_estimator_without_finite_nudges_gets_symmetric_ones(recipe, capsys):
    text, _ = checked(capsys, recipe, "--fast", "true", "--substrate", "chip_of_test_machine.chip")
    assert "adds to the error of estimates of symmetric 0.1, 3 images" in text
    assert "ReadNoise dominates" in text


def test_a_run_is_checked_on_a_machine_that_reads_its_weights_anew(recipe, monkeypatch, capsys):
    """The run was trained on the ideal one, with its phases stacked."""
    without_pages(monkeypatch)
    assert main(["train", recipe, "--out", "run"]) == 0
    text, found = checked(capsys, "run", "--substrate", "two-circuits")
    assert "TwoCircuits, its only fault" in text
    assert not [row for row in found["comparison"]["rows"] if row["problem"]]


def test_a_recipe_with_the_option_is_checked_on_its_substrate(recipe, capsys):
    rows = [f"{k % 7},{k % 5},{'yes' if k % 2 else 'no'}" for k in range(60)]
    Path("data.csv").write_text("\n".join(["a,b,y", *rows]))
    command = ["table", "--data", "data.csv", "--target", "y", "--substrate", "chip_of_test_machine.chip"]
    text, found = checked(capsys, *command)
    assert [part["name"] for part in found["machine"]["parts"]] == ["WeightSpread", "ReadNoise"]
    assert "Verdict on the machine: " in text


def test_a_substrate_that_is_none_is_one_line(recipe, capsys):
    assert main(["check", recipe, "--substrate", "mismach", "--out", "out"]) == 2
    assert "did you mean 'mismatch'" in capsys.readouterr().err
