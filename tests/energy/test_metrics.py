"""The metrics of a loss: their values; exact if saved in the middle and summed over processes; not imported early."""

import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

import eqprop as ep
from eqprop.energy import WeightedSum

LABELS = torch.arange(40) % 7
SCORES = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
VALUES = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(1))
GUESSES = VALUES + torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(2))
BITS = (VALUES > 0).float()
CLASSES = [
    ep.CrossEntropy("y", (7,)),
    ep.ReadoutCrossEntropy("y", (3,), 7),
    ep.SquaredError("y", (7, 1, 1)),
    ep.BinaryCrossEntropy("y", (7,)),
]
EVERY = [
    *((loss, SCORES, LABELS) for loss in CLASSES),
    (ep.SquaredError("y", (2, 3)), GUESSES, VALUES),
    (ep.BinaryCrossEntropy("y", (2, 3)), GUESSES.sigmoid(), BITS),
    (ep.BinaryCrossEntropy("y", (2, 3)), GUESSES.sigmoid(), VALUES.sigmoid()),
    (WeightedSum([ep.SquaredError("y", (2, 3)), ep.CrossEntropy("z", (7,))]), GUESSES, (VALUES, LABELS)),
]


def some(target, rows):
    return tuple(some(each, rows) for each in target) if isinstance(target, tuple) else target[rows]


def computed(loss, scores, target, parts=1):
    metrics = loss.metrics(target)
    for rows in torch.arange(len(scores)).chunk(parts):
        for metric in metrics.values():
            metric.update(scores[rows], some(target, rows))
    return {name: float(metric.compute()) for name, metric in metrics.items()}


@pytest.mark.parametrize("loss", CLASSES, ids=lambda loss: type(loss).__name__)
def test_accuracies_of_labels(loss):
    found = computed(loss, SCORES.view(40, *getattr(loss, "shape", (7,)) if loss.shape != (3,) else (7,)), LABELS)
    top = (SCORES.topk(5).indices == LABELS[:, None]).any(1)
    assert found == {
        "accuracy": float((SCORES.argmax(1) == LABELS).double().mean()),
        "top5_accuracy": float(top.double().mean()),
    }


def test_five_classes_have_no_top_five():
    assert list(ep.CrossEntropy("y", (5,)).metrics(LABELS % 5)) == ["accuracy"]
    assert computed(ep.SquaredError("y", (1,)), SCORES[:, :1], LABELS * 0) == {"accuracy": 1.0}


def test_errors_of_values():
    found = computed(ep.SquaredError("y", (2, 3)), GUESSES, VALUES)
    error = (GUESSES.double() - VALUES.double()).square()
    spread = (VALUES.double() - VALUES.double().mean(0)).square().sum(0)
    assert found["squared_error"] == pytest.approx(float(error.mean()), rel=1e-14)
    assert found["r2"] == pytest.approx(float((1 - error.sum(0) / spread).mean()), rel=1e-12)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_r2_does_not_depend_on_the_unit(unit):
    y, guess = VALUES.double() * unit, GUESSES.double() * unit
    found = computed(ep.SquaredError("y", (2, 3)), guess, y)["r2"]
    assert found == pytest.approx(computed(ep.SquaredError("y", (2, 3)), GUESSES.double(), VALUES.double())["r2"])


def test_r2_of_one_example_and_of_a_constant():
    loss = ep.SquaredError("y", (1,))
    one, three = torch.ones(1, 1), torch.full((3, 1), 0.3)
    assert math.isnan(computed(loss, one, one)["r2"])
    assert computed(loss, three, three)["r2"] == 1
    assert computed(loss, three + 0.1, three)["r2"] == 0


def test_accuracy_of_bits():
    loss = ep.BinaryCrossEntropy("y", (2, 3))
    assert computed(loss, GUESSES.sigmoid(), BITS) == {
        "accuracy": float(((GUESSES > 0) == (BITS > 0.5)).double().mean())
    }
    assert set(computed(loss, GUESSES.sigmoid(), VALUES.sigmoid())) == {"squared_error", "r2"}


def test_a_sum_of_losses_reads_the_first():
    first, second = ep.SquaredError("y", (2, 3)), ep.CrossEntropy("z", (7,))
    assert computed(WeightedSum([first, second]), GUESSES, (VALUES, LABELS)) == computed(first, GUESSES, VALUES)
    nested = WeightedSum([WeightedSum([first, second]), second])
    assert computed(nested, GUESSES, ((VALUES, LABELS), LABELS)) == computed(first, GUESSES, VALUES)
    assert computed(WeightedSum([second, second]), SCORES, LABELS) == computed(second, SCORES, LABELS)


def test_a_users_loss_has_none():
    assert ep.energy.losses.LinearForce("y").metrics(VALUES) == {}


@pytest.mark.parametrize(("loss", "scores", "target"), EVERY, ids=range(len(EVERY)))
def test_states_are_sums(loss, scores, target):
    """Saved after some batches and restored, or summed over two processes: the same numbers."""
    metrics, halves = loss.metrics(target), [loss.metrics(target), loss.metrics(target)]
    for name, metric in metrics.items():
        assert {each.__name__ for each in metric._reductions.values()} == {"dim_zero_sum"}
        for i, rows in enumerate(torch.arange(len(scores)).chunk(2)):
            metric.update(scores[rows], some(target, rows))
            halves[i][name].update(scores[rows], some(target, rows))
        summed = loss.metrics(target)[name]
        for state in metric._defaults:
            parts = [getattr(half[name], state) for half in halves]
            assert all(part.dtype == torch.float64 and part.shape == summed._defaults[state].shape for part in parts)
            setattr(summed, state, parts[0] + parts[1])
        assert torch.equal(summed.compute(), metric.compute())


def test_sums_are_in_double_precision():
    many = torch.full((1000, 1), 0.1)
    found = computed(ep.SquaredError("y", (1,)), many, torch.zeros(1000, 1), parts=100)
    assert found["squared_error"] == pytest.approx(float(many[0].double() ** 2), rel=1e-14)


@pytest.mark.parametrize("loss", CLASSES, ids=lambda loss: type(loss).__name__)
def test_probabilities_have_the_order_of_the_scores(loss):
    scores = SCORES.sigmoid() if isinstance(loss, ep.BinaryCrossEntropy) else SCORES * 3
    found = loss.probabilities(scores)
    assert found.shape == (40, 7)
    assert bool((found >= 0).all())
    assert torch.allclose(found.sum(1), torch.ones(40))
    assert torch.equal(found.argmax(1), scores.argmax(1))
    assert torch.equal(WeightedSum([loss]).probabilities(scores), found)


def test_probabilities():
    assert torch.equal(ep.CrossEntropy("y", (7,)).probabilities(SCORES), SCORES.softmax(1))
    assert ep.BinaryCrossEntropy("y", (2,)).probabilities(torch.tensor([[0.0, 0.0], [0.1, 0.3]])).tolist() == [
        [0.5, 0.5],
        pytest.approx([0.25, 0.75]),
    ]
    least = ep.SquaredError("y", (3,))
    assert torch.allclose(least.probabilities(torch.eye(3)), torch.eye(3))
    assert least.probabilities(torch.tensor([[2.0, 1.5, -9.0], [0.0, 0.0, 0.0]])).tolist() == [
        pytest.approx([0.75, 0.25, 0]),
        pytest.approx([1 / 3, 1 / 3, 1 / 3]),
    ]
    assert ep.energy.losses.LinearForce("y").probabilities(SCORES) is None


def test_nearest_probabilities_are_nearest():
    """No exchange between two classes brings them nearer."""
    values = SCORES.double()
    found = ep.energy.losses.nearest_probabilities(values)
    slack = found - values  # the same for all classes that are not 0, and greater for those that are
    least = slack.min(1, keepdim=True).values
    assert torch.allclose(slack.where(found > 0, least), least.expand_as(slack))
    assert torch.allclose(found, F.normalize(found, p=1))


def test_eqprop_imports_no_torchmetrics():
    code = "import sys, eqprop; assert 'torchmetrics' not in sys.modules and 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
