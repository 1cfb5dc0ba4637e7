"""Stencils: at which nudges to look, and how to weigh what is seen there.

Every estimator of the family is a finite-difference formula for d/dbeta at 0, applied to the gradient of the
nudged energy with respect to the parameters (Scellier & Bengio 2017; Laborieux et al. 2021 for the symmetric
one; Laborieux & Zenke 2022 for nudges of complex strength). Its moments say what it estimates, and how fast its bias
vanishes with beta.

Names, and two conventions of beta. Positive, negative and centred (Scellier et al. 2023) are the phases (0, beta),
(-beta, 0) and (-beta, beta), as here. Optimistic, pessimistic and centred of agnostic equilibrium propagation (Scellier
et al. 2022) are (0, beta), (-beta, 0) and (-beta/2, beta/2): their centred one at beta is ``centred(beta / 2)`` here.
"""

from __future__ import annotations

import cmath
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from eqprop.errors import InputError


class Nudging(ABC):
    """Chooses the stencil of each step."""

    @abstractmethod
    def draw(self) -> Stencil: ...

    @property
    def is_complex(self) -> bool:
        """Whether it nudges by complex betas, which only holomorphic networks follow."""
        return False

    def generators(self) -> Iterable[torch.Generator]:
        """The random generators it draws from, so that a checkpoint can keep their states."""
        return ()


@dataclass(frozen=True)
class Stencil(Nudging):
    """d/dbeta f(beta) at 0 is estimated by the sum over k of ``weights[k] * f(betas[k])``: by its real part.

    As f is real at real beta, f at the conjugate of beta is the conjugate of f(beta), and has the same share: of each
    such pair one is enough, with twice the weight.

    Raises:
        InputError: the weights do not sum to 0, or the weighted betas not to 1.
    """

    betas: tuple[complex, ...]
    weights: tuple[complex, ...]

    def __post_init__(self) -> None:
        if len(self.betas) != len(self.weights) or not self.betas:
            raise InputError(f"A stencil needs one weight for each beta, not {self.weights} for {self.betas}.")
        if len(set(self.betas)) < len(self.betas):
            raise InputError(f"The betas {self.betas} repeat: add their weights up.")
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
        """The bias shrinks like beta^order, on a smooth network."""
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


def one_sided(beta: float) -> Stencil:
    """(f(beta) - f(0)) / beta, order 1. A negative beta nudges away from the target."""
    check_beta(beta)
    return Stencil((0.0, beta), (-1 / beta, 1 / beta))


def symmetric(beta: float) -> Stencil:
    """(f(beta) - f(-beta)) / (2 beta), order 2 (Laborieux et al. 2021)."""
    check_beta(beta)
    return Stencil((beta, -beta), (0.5 / beta, -0.5 / beta))


def five_point(beta: float) -> Stencil:
    """(f(-2 beta) - 8 f(-beta) + 8 f(beta) - f(2 beta)) / (12 beta), order 4."""
    check_beta(beta)
    unit = 1 / (12 * beta)
    return Stencil((2 * beta, beta, -beta, -2 * beta), (-unit, 8 * unit, -8 * unit, unit))


def holomorphic(beta: float, points: int) -> Stencil:
    """sum_n f(beta w^n) w^-n / (points beta), w = exp(2 pi i / points): order ``points`` (Laborieux & Zenke 2022).

    Cauchy's formula for f'(0) by the trapezoidal rule. Two points are ``symmetric(beta)``; more want complex states, so
    a network that is smooth throughout. Of the circle its upper half is settled, the real nudges first.

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
    """One turn of (nudge, weight), from beta on, evenly spaced."""
    check_beta(beta)
    turns = [cmath.rect(1, 2 * math.pi * n / points) for n in range(points)]
    return [(beta * turn, turn.conjugate() / (points * beta)) for turn in turns]


def negative(beta: float) -> Stencil:
    """(f(0) - f(-beta)) / beta, order 1: nudges away from the target alone."""
    return one_sided(-beta)


positive = optimistic = one_sided
pessimistic = negative
centred = symmetric


class Generator(torch.Generator):
    """An estimator's own: a copy of the estimator draws the same numbers from then on, and draws them apart."""

    def __deepcopy__(self, memo: dict[int, object]) -> Generator:
        twin = type(self)()
        twin.set_state(self.get_state())
        return twin


@dataclass(frozen=True, eq=False)
class RandomSign(Nudging):
    """One-sided, the sign of beta a fair coin at each step: symmetric on average (Laborieux et al. 2021, section 2.3).

    Draws from its own generator, seeded with ``seed``.
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
