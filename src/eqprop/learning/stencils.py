"""Stencils: the nudges of an estimate, and the weights of its phases.

Every stencil is a finite-difference formula for d/dbeta at 0, applied to the gradient of the nudged energy with respect
to the parameters (Scellier & Bengio 2017, doi 10.3389/fncom.2017.00024; the symmetric one: Laborieux et al. 2021, doi
10.3389/fnins.2021.633674; complex nudges: Laborieux & Zenke 2022, arXiv 2209.00530). Its moments give what it
estimates, and the order in beta of its bias.

There are two conventions of beta. Positive, negative and centred nudges (Scellier et al. 2023, arXiv 2312.15103) are
(0, beta), (-beta, 0) and (-beta, beta), as here. Optimistic, pessimistic and centred agnostic equilibrium propagation
(Scellier et al. 2022, arXiv 2205.15021) have (0, beta), (-beta, 0) and (-beta/2, beta/2): their centred one at beta is
``centred(beta / 2)`` here.
"""

from __future__ import annotations

import cmath
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from eqprop.checks import checked
from eqprop.draws import Generator
from eqprop.errors import InputError


class Nudging(ABC):
    """Chooses the stencil of each step."""

    @abstractmethod
    def draw(self) -> Stencil:
        """The stencil of one step."""

    def once(self) -> Nudging:
        """The same for one step: every ``draw`` returns the first result, so that a backward pass can be repeated."""
        return DrawnOnce(self)

    @property
    def is_complex(self) -> bool:
        """Whether it has complex betas, which need a holomorphic network."""
        return False

    def generators(self) -> Iterable[torch.Generator]:
        """The random generators that it uses; a checkpoint stores their states."""
        return ()


@dataclass(frozen=True)
class Stencil(Nudging):
    """Estimates d/dbeta f(beta) at 0 by the real part of the sum over k of ``weights[k] * f(betas[k])``.

    f is real at real beta, so f at the conjugate of beta is the conjugate of f(beta), with the same real part. So of
    each conjugate pair of ``betas`` one is enough, with twice the weight.

    Raises:
        InputError: the weights do not sum to 0, or the weighted betas not to 1; betas repeat; or lengths differ.
    """

    betas: tuple[complex, ...]
    weights: tuple[complex, ...]

    def __post_init__(self) -> None:
        if len(self.betas) != len(self.weights) or not self.betas:
            raise InputError(f"A stencil needs one weight for each beta, not {self.weights} for {self.betas}.")
        if len(set(self.betas)) < len(self.betas):
            raise InputError(f"The betas {self.betas} repeat: add their weights.")
        size = sum(abs(w) for w in self.weights)
        if abs(self.moment(0)) > 1e-9 * size or abs(self.moment(1) - 1) > 1e-9:
            raise InputError(
                f"betas {self.betas} with weights {self.weights} do not estimate a derivative: the weights must "
                f"sum to 0 (got {self.moment(0):g}) and the weighted betas to 1 (got {self.moment(1):g})."
            )

    def moment(self, power: int) -> float:
        """The real part of sum_k weights[k] betas[k]^power."""
        return sum((w * b**power).real for b, w in zip(self.betas, self.weights, strict=True))

    @property
    def order(self) -> int:
        """The exponent of the bias: it falls like beta^order, on a smooth network."""
        scale = max(abs(b) for b in self.betas)
        power = 2
        while abs(self.moment(power)) < 1e-9 * scale ** (power - 1):
            power += 1
        return power - 1

    @property
    def is_complex(self) -> bool:
        return any(isinstance(beta, complex) for beta in self.betas)

    def draw(self) -> Stencil:
        return self

    def once(self) -> Nudging:
        return self


class DrawnOnce(Nudging):
    """Another nudging; its first draw is used every time."""

    def __init__(self, nudging: Nudging):
        self.nudging = nudging
        self._drawn: Stencil | None = None

    def draw(self) -> Stencil:
        self._drawn = self._drawn or self.nudging.draw()
        return self._drawn

    @property
    def is_complex(self) -> bool:
        return self.nudging.is_complex


@checked
def one_sided(beta: float) -> Stencil:
    """(f(beta) - f(0)) / beta, order 1. A negative ``beta`` nudges away from the target."""
    check_beta(beta)
    return Stencil((0.0, beta), (-1 / beta, 1 / beta))


@checked
def symmetric(beta: float) -> Stencil:
    """(f(beta) - f(-beta)) / (2 beta), order 2 in ``beta`` (Laborieux et al. 2021)."""
    check_beta(beta)
    return Stencil((beta, -beta), (0.5 / beta, -0.5 / beta))


@checked
def five_point(beta: float) -> Stencil:
    """(f(-2 beta) - 8 f(-beta) + 8 f(beta) - f(2 beta)) / (12 beta), order 4 in ``beta``."""
    check_beta(beta)
    unit = 1 / (12 * beta)
    return Stencil((2 * beta, beta, -beta, -2 * beta), (-unit, 8 * unit, -8 * unit, unit))


@checked
def holomorphic(beta: float, points: int) -> Stencil:
    """(sum_n f(beta w^n) w^-n) / (points beta), w = exp(2 pi i / points), order ``points`` (Laborieux & Zenke 2022).

    Cauchy's formula for f'(0) by the trapezoidal rule on a circle of radius ``beta``. Two points are
    ``symmetric(beta)``; more need complex states, so a smooth network. Only the upper half of the circle is settled,
    the real nudges first.

    Raises:
        InputError: fewer than two points; (f(beta) - f(0)) / beta is ``one_sided``.
    """
    if points < 2:
        raise InputError(f"points {points}: a circle needs at least two; one nudge and the free phase are `one_sided`.")
    nudges = circle(beta, points)
    upper = nudges[1 : (points + 1) // 2]
    real = [nudges[0]] if points % 2 else [nudges[0], nudges[points // 2]]
    kept = [(b.real, w.real) for b, w in real] + [(b, 2 * w) for b, w in upper]
    betas, weights = zip(*kept, strict=True)
    return Stencil(betas, weights)


def circle(beta: float, points: int) -> list[tuple[complex, complex]]:
    """The pairs (nudge, weight) of one turn, evenly spaced, starting at beta."""
    check_beta(beta)
    turns = [cmath.rect(1, 2 * math.pi * n / points) for n in range(points)]
    return [(beta * turn, turn.conjugate() / (points * beta)) for turn in turns]


@checked
def negative(beta: float) -> Stencil:
    """(f(0) - f(-beta)) / beta, order 1 in ``beta``: nudges only away from the target."""
    return one_sided(-beta)


positive = optimistic = one_sided
pessimistic = negative
centred = symmetric


@dataclass(frozen=True, eq=False)
class RandomSign(Nudging):
    """One-sided, with a random sign of beta at each step: symmetric on average (Laborieux et al. 2021, section 2.3).

    Attributes:
        beta: the size of the nudge.
        seed: of its own generator.
    """

    beta: float
    seed: int = 0
    generator: Generator = field(default_factory=Generator, repr=False, init=False)

    def __post_init__(self) -> None:
        check_beta(self.beta)
        self.generator.manual_seed(self.seed)

    def draw(self) -> Stencil:
        heads = bool(torch.randint(2, (), generator=self.generator))
        return one_sided(self.beta if heads else -self.beta)

    def generators(self) -> Iterable[torch.Generator]:
        return (self.generator,)


def check_beta(beta: float) -> None:
    if not (beta != 0 and abs(beta) < float("inf")):
        raise InputError(f"beta {beta} does not nudge: it must be finite and not 0.")
