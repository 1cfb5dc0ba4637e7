"""Every estimator learns the digits on a machine with all the faults that it takes, and says why it takes no other."""

import inspect
import sys
from pathlib import Path

import pytest
import torch
from faults import FAULTS

import eqprop as ep
from eqprop import physics, substrates as s
from eqprop.tasks import load_images

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from estimators import CASES, FREE, Case, gradients, named

L = ep.learning
SPINS = [
    Case("thermal", lambda: physics.ThermalEP(ep.one_sided(0.3), physics.Gibbs(1.0, 2, 1)), ()),
    Case("covariance", lambda: physics.CovarianceEP(physics.Gibbs(1.0, 2, 1)), ()),
]
"""These learn spins, on the ideal substrate alone."""
MORE = [
    Case(
        "jacobian-penalty", lambda: L.JacobianPenalty(ep.ImplicitDifferentiation(FREE, 1e-6), L.jacobian_norm, 0.1), ()
    ),
    Case("rayleigh-penalty", lambda: L.RayleighPenalty(ep.ImplicitDifferentiation(FREE, 1e-6), 0.1), ()),
]
EVERY = [*CASES, *MORE, *SPINS]
GENTLE = FAULTS | {
    "WeightNoise": s.WeightNoise(1e-4),
    "UnitNoise": s.UnitNoise(1e-4),
    "LoopConverter": s.LoopConverter(1e-4),
    "ReadNoise": s.ReadNoise(1e-4),
    "ReadConverter": s.ReadConverter(1e-4, -0.95, 0.95),
    "ReadConverter at random": s.ReadConverter(1e-4, random=True),
    "Droop": s.Droop(1e-4),
    "NudgeOffset": s.NudgeOffset(0.01),
    "TwoCircuits": s.TwoCircuits(s.ReadSpread(1e-4), s.ReadSpread(1e-4, seed=1)),
}
"""As ``FAULTS``, but weak where phases differ: that part is divided by beta."""


def digits():
    """A hundred of them: (100, 64) in [0, 1], and labels."""
    images = load_images("digits").train
    return images.pixels[:100].flatten(1).double() / images.pixels.max(), images.labels[:100]


X, Y = digits()


def model(case, substrate):
    torch.manual_seed(0)
    layers = [ep.DenseLayer(12, ep.tanh), ep.DenseLayer(10, ep.tanh)]
    network = ep.chain((64,), layers, ep.SquaredError).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    return case.model(network.on(substrate))


def refusal(case, substrate):
    """Why the estimator does not learn on the substrate; "" if it does."""
    learner = model(case, substrate)
    try:
        found = gradients(learner.loss(X[:20], Y[:20]), learner)
    except ep.InputError as error:
        return str(error)
    assert found.isfinite().all()
    assert bool(found.any())
    return ""


def public_estimators():
    spaces = (ep, L, physics)
    return {
        name
        for space in spaces
        for name, each in vars(space).items()
        if inspect.isclass(each) and issubclass(each, ep.Estimator) and not inspect.isabstract(each)
    }


def test_every_estimator_is_here():
    assert public_estimators() == {type(case.make()).__name__ for case in EVERY}, "give the new one a Case"


@pytest.mark.parametrize("case", [*CASES, *MORE], ids=named)
def test_it_learns_on_all_the_faults_that_it_takes(case):
    refused = {name: told for name, fault in GENTLE.items() if (told := refusal(case, fault))}
    for told in refused.values():
        assert "\n" not in told
        assert " at 0x" not in told
        assert "tensor(" not in told
        assert ": " in told  # the way out
    assert len(refused) <= 5
    machine = s.Together(*(fault for name, fault in GENTLE.items() if name not in refused))
    learner, order = model(case, machine), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    first = float(learner.loss(X, Y).detach())
    for _ in range(12):
        rows = torch.randperm(len(X), generator=order)[:40]
        optimizer.zero_grad()
        learner.loss(X[rows], Y[rows]).backward()
        optimizer.step()
    assert float(learner.loss(X, Y).detach()) < 0.9 * first


@pytest.mark.parametrize("case", SPINS, ids=named)
def test_at_a_temperature_there_is_no_substrate_but_the_ideal_one(case):
    for fault in GENTLE.values():
        assert "no substrate but the ideal one" in refusal(case, fault)
