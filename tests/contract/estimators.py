"""Every estimator with the networks that it takes: what the tests of the autograd contract are parametrised over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

import eqprop as ep
from eqprop.learning import forms

FREE, NUDGED = ep.FixedSweeps(8), ep.FixedSweeps(5)
BATCH = 6
CLASSES = 4


def shrunk(network: ep.Network, factor: float = 0.6) -> ep.Network:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(factor)
    return network


def dense(separate: bool = False, loss: Callable = ep.SquaredError) -> ep.Network:
    torch.manual_seed(0)
    return shrunk(ep.chain((6,), [ep.DenseLayer(5, ep.tanh), ep.DenseLayer(CLASSES, ep.tanh)], loss, separate))


MAX = ep.MaxPool(2)


def conv(pool: ep.energy.Pool | None = MAX) -> ep.Network:
    """Two convolutions, the second between two nodes that settle, and a dense layer."""
    torch.manual_seed(0)
    layers = [ep.ConvLayer(2, pool=None, activation=ep.tanh), ep.ConvLayer(3, pool=pool, activation=ep.tanh)]
    return shrunk(ep.chain((1, 4, 4), [*layers, ep.DenseLayer(CLASSES, ep.tanh)], ep.SquaredError))


def readout() -> ep.Network:
    return dense(loss=partial(ep.ReadoutCrossEntropy, classes=CLASSES))


NETWORKS = {"dense": dense, "conv": conv, "separate": partial(dense, separate=True)}


@dataclass(frozen=True)
class Case:
    """An estimator, made anew at each ``make`` (some hold a random generator), and the networks that it takes.

    Attributes:
        name: of the estimator, as in the test's name.
        make: the estimator.
        networks: names in ``NETWORKS``.
        local: whether an example's gradient depends on that example alone. Not where weights move within a batch, nor
            where a predictor is fitted to the batch.
        moves: whether it moves the parameters within a step.
        everyone: whether every example of a batch is learnt from.
    """

    name: str
    make: Callable[[], ep.Estimator]
    networks: tuple[str, ...]
    local: bool = True
    moves: bool = False
    everyone: bool = True

    def model(self, network: ep.Network, on_unsettled: str = "ignore") -> ep.Equilibrium:
        return equilibrium(network, self.make(), on_unsettled)


def equilibrium(network: ep.Network, estimator: ep.Estimator, on_unsettled: str = "ignore") -> ep.Equilibrium:
    """The networks here are given few sweeps: whether they settled is the subject of ``test_unsettled`` alone."""
    return ep.Equilibrium(network, estimator, on_unsettled=on_unsettled)


def nudging(stencil: Callable[[], ep.learning.Nudging], rule=ep.contrastive, form=forms.displacements, **more):
    return lambda: ep.EquilibriumPropagation(stencil(), FREE, NUDGED, rule, form, **more)


SETTLE = ep.UntilConverged(1e-10, 60)
DENSE, IMAGES, FEEDBACK = ("dense",), ("dense", "conv"), ("dense", "separate")
EVERY = ("dense", "conv", "separate")
STENCILS = {
    "one-sided": partial(ep.one_sided, 0.3),
    "symmetric": partial(ep.symmetric, 0.3),
    "five-point": partial(ep.learning.five_point, 0.1),
    "random-sign": partial(ep.learning.RandomSign, 0.3),
}
FORMS = {"displacements": forms.displacements, "states": forms.states}
RULES = {"vector_field": FEEDBACK, "kolen_pollack": FEEDBACK, "clamped_presynaptic": DENSE}
TEACHERS = {"clamp": ep.learning.clamp, "soft-clamp": ep.learning.soft_clamp}
CIRCLE = partial(ep.learning.holomorphic, 0.3, 4)
CASES = [
    *(
        Case(f"ep-{name}-{form}", nudging(stencil, form=FORMS[form]), EVERY if name == "symmetric" else DENSE)
        for name, stencil in STENCILS.items()
        for form in FORMS
    ),
    *(
        Case(f"ep-{rule}-{form}", nudging(STENCILS["symmetric"], getattr(ep.learning, rule), FORMS[form]), networks)
        for rule, networks in RULES.items()
        for form in FORMS
    ),
    *(
        Case(f"ep-{name}-{form}", nudging(partial(ep.one_sided, 0.5), form=FORMS[form], teacher=teacher), DENSE)
        for name, teacher in TEACHERS.items()
        for form in FORMS
    ),
    *(
        Case(
            f"ep-corrected-{form}",
            nudging(STENCILS["symmetric"], ep.vector_field, FORMS[form], teacher=ep.learning.corrected),
            EVERY,
        )
        for form in FORMS
    ),
    Case("ep-in-turn", nudging(STENCILS["symmetric"], stacked=False), DENSE),
    Case("ep-until-converged", lambda: ep.EquilibriumPropagation(ep.symmetric(0.3), SETTLE, SETTLE), DENSE),
    Case("ep-holomorphic-displacements", nudging(CIRCLE), IMAGES),
    Case("ep-holomorphic-states", nudging(CIRCLE, form=forms.states), DENSE),
    Case("lock-in", lambda: ep.learning.LockIn(0.3, 4, FREE, NUDGED, transient=0), IMAGES),
    Case("oscillating-displacements", lambda: ep.learning.OscillatingNudge(0.3, 4, FREE, NUDGED, transient=0), IMAGES),
    Case(
        "oscillating-states",
        lambda: ep.learning.OscillatingNudge(0.3, 4, FREE, NUDGED, transient=0, form=forms.states),
        DENSE,
    ),
    Case(
        "continual",
        lambda: ep.learning.ContinualEP(ep.symmetric(0.3), FREE, ep.FixedSweeps(3), 1e-3),
        EVERY,
        local=False,
        moves=True,
    ),
    Case(
        "agnostic",
        lambda: ep.learning.AgnosticEP(ep.one_sided(0.3), FREE, ep.FixedSweeps(3), 1e-3),
        IMAGES,
        local=False,
        moves=True,
    ),
    Case(
        "predictive",
        lambda: ep.learning.PredictiveLearning(FREE, NUDGED, 3, 2, ep.learning.LeastSquares((1,))),
        IMAGES,
        local=False,
        everyone=False,
    ),
    *(Case(f"dyadic-{form}", partial(ep.learning.DyadicEP, 0.3, FREE, NUDGED, FORMS[form]), EVERY) for form in FORMS),
    Case("dual", lambda: ep.learning.DualPropagation(0.3), EVERY),
    Case("infinitesimal-conjugate-gradients", lambda: ep.InfinitesimalNudge(FREE), IMAGES),
    Case("infinitesimal-sweeps", lambda: ep.InfinitesimalNudge(FREE, NUDGED), FEEDBACK),
    Case("infinitesimal-corrected", lambda: ep.InfinitesimalNudge(FREE, NUDGED, corrected=True), FEEDBACK),
    Case("implicit", lambda: ep.ImplicitDifferentiation(FREE, 1e-12), EVERY),
    Case("through-time", lambda: ep.BackpropagationThroughTime(FREE, 6), EVERY),
    Case("backpropagation", lambda: ep.Backpropagation(), EVERY),
]


@dataclass(frozen=True)
class Setting:
    """One estimator on one network, which it takes, with data for it."""

    case: Case
    kind: str

    def network(self) -> ep.Network:
        return NETWORKS[self.kind]()

    def model(self, dtype: torch.dtype = torch.float64) -> ep.Equilibrium:
        """The same each time."""
        model = self.case.model(self.network()).to(dtype)
        if dtype is torch.float32 and isinstance(model.estimator, ep.ImplicitDifferentiation):
            model.estimator = replace(model.estimator, tolerance=1e-6)  # what float32 resolves
        return model

    def data(self, dtype: torch.dtype = torch.float64, batch: int = BATCH) -> tuple[Tensor, Tensor]:
        return data(self.network(), dtype, batch)


SETTINGS = [Setting(case, kind) for case in CASES for kind in case.networks]


def data(network: ep.Network, dtype: torch.dtype = torch.float64, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """Inputs and labels: the same each time."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *network.nodes[network.input].shape, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.arange(batch) % CLASSES


def named(setting_or_case: Setting | Case) -> str:
    if isinstance(setting_or_case, Case):
        return setting_or_case.name
    return f"{setting_or_case.case.name}-{setting_or_case.kind}"


def learnt(module: torch.nn.Module) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def gradients(loss: Tensor, module: torch.nn.Module) -> Tensor:
    """All parameters' gradients in one vector, in float64 so that their sizes cannot overflow."""
    found = torch.autograd.grad(loss, learnt(module))
    return torch.cat([gradient.double().flatten() for gradient in found])


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
