"""Machines whose memory was programmed long ago: in Python, and by the options of every command."""

import csv
import json
import math
import re

import pytest
import torch
from interrupted import without_pages

import eqprop as ep
from eqprop.cli import main
from eqprop.cli.machines import seconds
from eqprop.devices import DAY, HOUR, YEAR, Filamentary, PhaseChange
from eqprop.energy.spec import from_spec, to_spec
from eqprop.files import load
from eqprop.substrates import (
    Aged,
    ReadNoise,
    StuckWeights,
    Together,
    TwoCircuits,
    WeightSpread,
    age_weights,
    at_age,
    redrawn,
)


def network():
    torch.manual_seed(0)
    return ep.chain((40,), [ep.DenseLayer(30, ep.tanh), ep.DenseLayer(10, ep.identity)], ep.SquaredError).double()


def read(net):
    """Name -> the weights that the network's substrate reads."""
    return {
        f"{name}.{key}": value.detach().clone()
        for name, term in net.terms.items()
        for key, value in net.substrate.mounted(name, term, 0).named_parameters()
    }


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("90s", 90.0),
        ("2min", 120.0),
        ("1.5h", 1.5 * HOUR),
        ("30 d", 30 * DAY),
        ("1y", YEAR),
        ("1e3", 1000.0),
        (".5d", DAY / 2),
    ],
)
def test_ages_in_words(text, age):
    assert seconds(text) == age


@pytest.mark.parametrize("text", ["", "y", "1yr", "1 m", "-1h", "1h 5min", "nan", "inf", "1e400", "1e308y", "1Y"])
def test_ages_that_cannot_be_read(text):
    with pytest.raises(ep.InputError, match="as 30d"):
        seconds(text)


def test_an_age_changes_the_memory_alone():
    chip = Together(WeightSpread(0.1), TwoCircuits(Aged(PhaseChange(), HOUR, seed=2), Aged(PhaseChange(), seed=3)))
    circuits = (Aged(PhaseChange(), YEAR, True, seed=seed) for seed in (2, 3))
    assert at_age(chip, YEAR, True) == Together(WeightSpread(0.1), TwoCircuits(*circuits))
    assert at_age(Aged(PhaseChange(), HOUR), compensate=True) == Aged(PhaseChange(), HOUR, True)
    assert at_age(Aged(PhaseChange(), HOUR, True), DAY) == Aged(PhaseChange(), DAY, True)
    for wrong in (WeightSpread(0.1), Together(), ep.energy.Substrate()):
        with pytest.raises(ep.InputError, match="No memory ages"):
            at_age(wrong, YEAR)
    with pytest.raises(ep.InputError, match="never programmed"):
        at_age(Aged(), compensate=True)


def test_compensated_weights_have_the_mean_size_of_programmed_ones():
    net = network()
    then, now = (read(net.on(Aged(PhaseChange(), age))) for age in (0.0, YEAR))
    for name, found in read(net.on(Aged(PhaseChange(), YEAR, compensate=True))).items():
        assert torch.equal(found, now[name]) == name.endswith("bias")
        assert float(found.abs().mean()) == pytest.approx(float(then[name].abs().mean()), rel=1e-12)
        if not name.endswith("bias"):
            assert float(now[name].abs().mean() / then[name].abs().mean()) < 0.7


def test_memory_that_cannot_be_read_at_once_is_compensated_from_its_first_age():
    net = network()
    then, now = (read(net.on(Aged(Filamentary(), age))) for age in (1.0, DAY))
    found = read(net.on(Aged(Filamentary(), DAY, compensate=True)))
    for name, value in found.items():
        torch.testing.assert_close(value, now[name] * (then[name].abs().mean() / now[name].abs().mean()))


def test_other_machines_differ_in_every_draw():
    chip = Together(WeightSpread(0.1), TwoCircuits(StuckWeights(0.1, seed=1), StuckWeights(0.1)), ReadNoise(0.1))
    assert redrawn(chip, 0) == chip
    net, machines = network(), [redrawn(chip, number) for number in range(3)]
    assert len({float(read(net.on(each))["input_layer1.map.weight"].sum()) for each in machines}) == 3
    assert machines[1].parts[1] == TwoCircuits(StuckWeights(0.1, seed=1_000_001), StuckWeights(0.1, seed=1_000_000))
    assert not torch.equal(*(each.once().parts[2].noise(torch.ones(3), "a") for each in machines[:2]))
    with pytest.raises(ep.InputError, match="the ideal substrate"):
        redrawn(ep.energy.Substrate(), 1)


def test_weights_become_what_is_read():
    net, memory = network(), Aged(PhaseChange(), YEAR)
    before, seen = read(net), read(net.on(memory))
    age_weights(net, memory)
    assert {name for name, value in read(net).items() if torch.equal(value, before[name])} == {
        name for name in before if name.endswith("bias")
    }
    assert all(torch.equal(value, seen[name]) for name, value in read(net).items())
    assert net.substrate.is_ideal
    torch.nn.utils.parametrizations.weight_norm(net.terms["input_layer1"].map)
    with pytest.raises(ep.InputError, match="computed"):
        age_weights(net, memory)


# -- commands --

TRAIN = ["train", "mnist-ep", "--data", "digits", "--batch_size", "50", "--epochs", "2", "--width", "0.2"]
TRAIN += ["--threads", "1", "--device", "cpu", "--precision", "32"]
AGED = ["--from_substrate", "pcm", "--from_age", "1y"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_pages(monkeypatch)
        assert main([*TRAIN, "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def told(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    without_pages(monkeypatch)

    def said(*words, status=0):
        capsys.readouterr()
        assert main([*words]) == status
        out, err = capsys.readouterr()
        return err if status else out

    return said


def accuracy(line):
    return float(re.search(r"accuracy ([\d.]+) %", line)[1])


def test_evaluation_at_an_age(told):
    whole = accuracy(told("evaluate", "run"))
    hour, year = (accuracy(told("evaluate", "run", "--substrate", "pcm", "--age", each)) for each in ("1h", "1y"))
    mended = accuracy(told("evaluate", "run", "--substrate", "pcm", "--age", "1y", "--compensate"))
    assert accuracy(told("evaluate", "run", "--substrate", "pcm")) == hour, "the age of the name"
    assert whole > hour > year
    assert mended > year + 10


def test_evaluation_of_several_machines(told):
    one = told("evaluate", "run", "--substrate", "pcm", "--age", "1d", "--draws", "1")
    line = told("evaluate", "run", "--substrate", "pcm", "--age", "1d", "--draws", "3")
    assert ", 3 draws of the machine" in line
    assert "standard deviation" not in one
    mean, deviation, low, high = (
        float(each)
        for each in re.search(
            r"accuracy ([\d.]+) % \(standard deviation ([\d.]+) %, from ([\d.]+) % to ([\d.]+) %\)", line
        ).groups()
    )
    assert low < mean < high
    assert (high - low) / 2 - 0.01 <= deviation <= (high - low) / math.sqrt(3) + 0.01, "of three values"
    assert low <= accuracy(one) <= high


def test_predictions_at_an_age(told):
    def classes(*words):
        return [row["class"] for row in csv.DictReader(told("predict", "run", *words).splitlines())]

    plain, aged = classes(), classes("--substrate", "pcm", "--age", "1y")
    assert len(plain) == len(aged)
    assert plain != aged


def test_learning_goes_on_from_weights_that_aged(told, place):
    told(
        *TRAIN,
        "--epochs",
        "1",
        "--lr",
        "1e-12",
        "--from",
        "run",
        "--from_substrate",
        "pcm",
        "--from_age",
        "1y",
        "--out",
        "aged",
    )
    found, begun = (load(place / name, "best")[0] for name in ("aged", "run"))
    own = ep.load(place / "run").model.network
    age_weights(own, Aged(PhaseChange(), YEAR))
    for name, value in own.state_dict().items():
        torch.testing.assert_close(found[f"model.network.{name}"], value, rtol=0, atol=1e-6)
    first = "model.network.couplings.input_layer1.map.weight"
    assert not torch.allclose(found[first], begun[first], rtol=0, atol=1e-3)
    year = accuracy(told("evaluate", "run", "--substrate", "pcm", "--age", "1y"))
    told(*TRAIN, "--epochs", "1", "--from", "run", *AGED, "--out", "mended")
    assert accuracy(told("evaluate", "mended")) > year + 10


def test_weights_written_by_pulses_age_too(told, place):
    written = ["--write", "mixed", "--write_to", "pcm", "--write_scale", "0.1", "--write_lr", "0.03"]
    told(*TRAIN, *written, "--out", "pulsed")
    assert accuracy(told("evaluate", "pulsed", "--substrate", "pcm", "--age", "1y")) < accuracy(
        told("evaluate", "pulsed", "--substrate", "pcm", "--age", "1y", "--compensate")
    )
    told(
        *TRAIN,
        "--epochs",
        "1",
        *written,
        "--from",
        "pulsed",
        "--from_substrate",
        "pcm",
        "--from_age",
        "1y",
        "--out",
        "again",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate", "run", "--age", "1y"], "No memory ages on the ideal substrate"),
        (["evaluate", "run", "--compensate"], "No memory ages on the ideal substrate"),
        (["evaluate", "run", "--substrate", "mismatch", "--age", "1y"], "such as pcm"),
        (["evaluate", "run", "--substrate", "pcm", "--age", "1 year"], "--age '1 year' is no age"),
        (["evaluate", "run", "--substrate", "pcm", "--age=-1"], "--age '-1' is no age"),
        (["evaluate", "run", "--draws", "2"], "the ideal substrate draws nothing"),
        (["evaluate", "run", "--substrate", "pcm", "--draws", "0"], "--draws 0"),
        (["predict", "run", "--age", "1y"], "No memory ages"),
        (["check", "run", "--age", "1y"], "No memory ages"),
        ([*TRAIN, "--from_age", "1y"], "--from_age is of weights that --from names"),
        ([*TRAIN, "--from", "run", "--from_age", "1y"], "No memory ages"),
        ([*TRAIN, "--from", "run", "--from_substrate", "wires"], "--from_substrate wires: weights can be read from"),
        ([*TRAIN, "--from", "run", "--from_substrate", "pcm", "--from_age", "x"], "--from_age 'x' is no age"),
    ],
    ids=lambda each: " ".join(each[1:]) if isinstance(each, list) else "",
)
def test_what_is_refused(told, words, says):
    new = ["--out", "new"] if words[0] == "train" else []
    assert says in told(*words, *new, status=2)


def test_memory_of_filaments_is_written_down_and_hashed():
    memory = Aged(Filamentary(), DAY)
    assert from_spec(json.loads(json.dumps(to_spec(memory, "memory"))), ()) == memory
    assert hash(memory) == hash(Aged(Filamentary(), DAY))
