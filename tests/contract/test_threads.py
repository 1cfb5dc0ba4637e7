"""Two threads with a model each, or with one model: what each finds is what it finds alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from estimators import CASES, SETTLE, data, dense, equilibrium, gradients, named
from torch.nn import functional as F

import eqprop as ep

STEPS = 3


def run(make, network, seed):
    """Some steps of a model of its own: all gradients, of its loss and of another one behind its output.

    What is drawn is drawn here, before any thread starts: they share torch's generator.
    """
    torch.manual_seed(0)
    x, y = data(network)

    def steps():
        model, found = equilibrium(network, make()), []
        for step in range(STEPS):
            found.append(gradients(model.loss(x + 0.1 * (step + seed), y), model))
            found.append(gradients(F.cross_entropy(model(x - 0.1 * (step + seed)), y), model))
        return torch.stack(found)

    return steps


def together(tasks):
    """Each task in a thread of its own, all starting at once."""
    barrier = threading.Barrier(len(tasks))

    def begin(task):
        barrier.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [each.result() for each in [pool.submit(begin, task) for task in tasks]]


def test_two_models_in_two_threads(case):
    tasks = [run(case.make, dense(), seed) for seed in (0, 1)]
    alone = [task() for task in tasks]
    for found, known in zip(together(tasks), alone, strict=True):
        torch.testing.assert_close(found, known)


@pytest.mark.parametrize(
    ("unit", "steps"), [(ep.sigmoid, 100), (ep.tanh, 20), (ep.energy.smooth_clip, 20), (ep.hard_sigmoid, 20)], ids=str
)
def test_the_linear_phases_slopes(unit, steps):
    """Derivatives of the units, hundreds of times in each of two threads."""

    def task(seed):
        torch.manual_seed(0)
        layers = [ep.DenseLayer(8, unit), ep.DenseLayer(8, unit), ep.DenseLayer(4, unit)]
        network = ep.chain((6,), layers, ep.SquaredError)
        x, y = data(network)
        model = equilibrium(network, ep.InfinitesimalNudge(ep.FixedSweeps(4), ep.settling.ConjugateGradients(4)))
        return lambda: torch.stack([gradients(model.loss(x + 0.01 * (step + seed), y), model) for step in range(steps)])

    tasks = [task(seed) for seed in (0, 50)]
    alone = [task() for task in tasks]
    for found, known in zip(together(tasks), alone, strict=True):
        torch.testing.assert_close(found, known)


def test_terms_derived_by_automatic_differentiation():
    """Modules as maps, and energies of a user's own, whose drives and tangents are derived."""

    class Cubic(ep.Coupling):
        def __init__(self):
            super().__init__()
            self.nodes, self.strength = ("layer1", "layer2"), torch.nn.Parameter(torch.tensor(0.05))

        def energy(self, *states):
            a, b = states
            return self.strength * (a[:, :4].square() * b).sum(1)

    def task(seed):
        base = dense()
        torch.manual_seed(0)
        terms = base.terms | {
            "layer1_layer2": ep.Synapse("layer1", "layer2", torch.nn.Linear(5, 4)),
            "cubic": Cubic(),
        }
        network = ep.Network(base.nodes, terms, ep.SquaredError("layer2", (4,)))
        x, y = data(network)

        def learn():
            found = []
            for make in (
                lambda: ep.InfinitesimalNudge(ep.FixedSweeps(6), ep.FixedSweeps(6)),
                lambda: ep.EquilibriumPropagation(ep.symmetric(0.2), ep.FixedSweeps(6), ep.FixedSweeps(6)),
                lambda: ep.ImplicitDifferentiation(ep.FixedSweeps(6)),
            ):
                model = equilibrium(network, make())
                found += [gradients(model.loss(x + 0.1 * (step + seed), y), model) for step in range(5)]
            return torch.stack(found)

        return learn  # the network is made here: in threads, its initial weights would come from one generator

    tasks = [task(seed) for seed in (0, 1)]
    alone = [task() for task in tasks]
    for found, known in zip(together(tasks), alone, strict=True):
        torch.testing.assert_close(found, known)


@pytest.mark.parametrize("case", [case for case in CASES if case.moves], ids=named)
def test_predictions_beside_rules_that_move_weights(case):
    """One thread learns, without a step of an optimiser; another predicts with the same model all the while."""
    network = dense()
    x, y = data(network)
    moving = equilibrium(network, strong(case.make()))
    reading = equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.1), ep.FixedSweeps(4), ep.FixedSweeps(2)))
    with torch.no_grad():
        known = reading(x)
    expected = gradients(moving.loss(x, y), moving)
    done = threading.Event()

    def learn():
        try:
            return [gradients(moving.loss(x, y), moving) for _ in range(12)]
        finally:
            done.set()

    def predict():
        seen = []
        with torch.no_grad():
            while not done.is_set():
                seen.append(reading(x))
        return seen

    learnt, predicted = together([learn, predict])
    assert predicted
    assert all(torch.equal(each, known) for each in predicted)
    for each in learnt:
        torch.testing.assert_close(each, expected)


def strong(estimator):
    """The same rule with steps that a prediction would show."""
    if isinstance(estimator, ep.learning.ContinualEP):
        return ep.learning.ContinualEP(estimator.nudging, estimator.free, ep.FixedSweeps(6), 0.1)
    return ep.learning.AgnosticEP(estimator.nudging, estimator.free, ep.FixedSweeps(6), 0.1)


def test_one_model_learns_in_two_threads(case):
    """Gradients are asked for, not accumulated: the threads share parameters alone."""
    if case.name.startswith("ep-random-sign"):
        pytest.skip("Its threads share one generator.")
    network = dense()
    x, y = data(network)
    model = case.model(network)
    known = gradients(model.loss(x, y), model)
    task = lambda: [gradients(model.loss(x, y), model) for _ in range(4)]  # noqa: E731
    for found in together([task, task]):
        for each in found:
            torch.testing.assert_close(each, known)


def test_settling_in_two_threads():
    network = dense()
    x, _ = data(network)
    known = SETTLE(network.landscape(x), network.landscape(x).zeros()).state
    task = lambda: SETTLE(network.landscape(x), network.landscape(x).zeros()).state  # noqa: E731
    for found in together([task, task]):
        torch.testing.assert_close(found, known)
