"""What each fault of a machine adds to an estimate of the gradient."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eqprop.checks import Count, Natural, checked
from eqprop.diagnostics.bias import divided
from eqprop.diagnostics.comparison import NOTHING, check_finite, titled, told
from eqprop.diagnostics.gradients import (
    Estimate,
    Named,
    as_vector,
    check_batch,
    double,
    double_data,
    estimate,
    learning,
    reciprocal_terms,
    relative_error,
    undisturbed,
)
from eqprop.diagnostics.references import exact_gradients, onward
from eqprop.energy import Network, State, Substrate, Target
from eqprop.energy.network import Data
from eqprop.energy.substrate import IDEAL
from eqprop.errors import InputError
from eqprop.learning import EquilibriumPropagation, Estimator, InfinitesimalNudge
from eqprop.learning.estimators import phases_apart
from eqprop.learning.stencils import Stencil
from eqprop.settling.solvers import Solution, UntilConverged
from eqprop.substrates import Together, laws

if TYPE_CHECKING:
    from rich.table import Table

NEARER = 0.5
"""The beta at which errors are measured too, relative to the estimator's own: smaller, as its bias is smaller there."""


@dataclass(frozen=True)
class ExactOn:
    """A reference: the exact gradient of the network on another substrate, at the equilibrium that the state leads to.

    Attributes:
        substrate: the other one.
    """

    substrate: Substrate

    def __call__(self, network: Network, estimator: Estimator, settled: Solution, x: Data, y: Target) -> Named:
        return exact_gradients(network.on(self.substrate), settled.state, x, y)


@dataclass(frozen=True)
class Added:
    """What a machine adds to an estimate of the gradient, relative to its own exact gradient.

    The errors are root mean squares over what it draws anew.

    Attributes:
        name: of the fault's class, numbered if there are several of it.
        machine: the fault and its sizes.
        by_beta: the part of the error that beta divides, at the estimator's own beta: phases differ by it.
        fixed: the part that is the same at every beta.
        own: the error of the estimate without these two: of finite nudges and of settling.
        moved: the distance of the machine's own exact gradient from the ideal network's, relative to the latter. It is
            no error of learning in situ, but one of weights that were learnt on another machine.
        worst: the largest error of one parameter tensor, relative to its own exact gradient; those of 0 are left out.
        where: the name of that tensor.
        effect, remedy: what the docstring of the class says; empty if it does not.
        problem: why there are no numbers, which are then NaN; else empty.
    """

    name: str
    machine: str
    by_beta: float = NOTHING
    fixed: float = NOTHING
    own: float = NOTHING
    moved: float = NOTHING
    worst: float = NOTHING
    where: str = ""
    effect: str = ""
    remedy: str = ""
    problem: str = ""

    @property
    def error(self) -> float:
        """Both parts of it together, as the root of their squares' sum."""
        return math.hypot(self.by_beta, self.fixed)


@dataclass(frozen=True)
class MachineErrors:
    """The result of ``machine_errors``.

    Attributes:
        beta: of the estimator, the smallest of its stencil.
        whole: what the whole machine adds.
        parts: what each of its faults adds, alone on an otherwise ideal machine.
    """

    beta: float
    whole: Added
    parts: tuple[Added, ...]

    @property
    def ranked(self) -> list[Added]:
        """The parts that could be measured, the largest error first."""
        return sorted((part for part in self.parts if not part.problem), key=lambda part: -part.error)

    def table(self, title: str = "") -> Table:
        """A table with a row for each fault and one for the whole machine."""
        about = (
            f"by beta: the error that beta divides, at beta {self.beta:g}; fixed: at every beta; both relative to the "
            "gradient. moved: the distance of the machine's exact gradient from the ideal network's"
        )
        table = titled(title, about, "fault, alone", ">by beta", ">fixed", ">moved", "remedy")
        for each in (*self.parts, *((self.whole,) if len(self.parts) != 1 else ())):
            numbers = [f"{value:.2g}" for value in (each.by_beta, each.fixed, each.moved)]
            given = ["", "", "", each.problem] if each.problem else [*numbers, each.remedy]
            table.add_row(each.name, *given, style="red" if each.problem else None)
        return table


@checked
def machine_errors(
    network: Network,
    x: Tensor,
    y: Target,
    estimator: EquilibriumPropagation,
    draws: Count = 4,
    seed: Natural = 0,
) -> MachineErrors:
    """What the network's substrate, and each fault of a ``Together``, adds to the error of an estimate, in float64.

    Each fault is measured alone, on an otherwise ideal machine, and not by leaving it out: errors add in squares, so
    that the machine without one fault of several is hardly better; and the laws of the classes are those of one fault.
    What a fault adds is the difference of two estimates, with the same solvers and nudges: on the machine with it, and
    on that machine as it was made (``Substrate.as_made``), so that the bias of the nudge and of settling is in none.
    Where the machine's feedback is not the transpose, the bias of small nudges counts too, as a fixed error. The
    parts are told apart by a second measurement at half the beta.

    Args:
        network: on a substrate that is not the ideal one.
        x, y: as for ``compare``; few examples are enough.
        estimator: with its nudges and solvers.
        draws: the number of estimates, on a machine that draws anew.
        seed: of torch's generator, for substrates that draw from it.

    Returns:
        The errors. A fault that this network does not allow has a ``problem``; the others are not affected.

    Raises:
        InputError: the network is on the ideal substrate, or an argument does not fit.
        NotSettledError: the free phase leads to no rest, so that there is no exact gradient.
    """
    if network.substrate.is_ideal:
        raise InputError("The network is on the ideal substrate, which adds no error: put it on a machine by `on`.")
    bench, machine = Bench(network, x, y, estimator, draws, seed), network.substrate
    faults = machine.faults() if isinstance(machine, Together) else (machine,)
    names = numbered([type(each).__name__ for each in faults])
    parts = tuple(bench.tried(name, each) for name, each in zip(names, faults, strict=True))
    whole = parts[0] if len(parts) == 1 else bench.tried("all together", machine)
    return MachineErrors(min(abs(beta) for beta in bench.stencil.betas if beta), whole, parts)


class Bench:
    """A network, an estimator and a batch on which machines are tried; what all of them share is computed once.

    Arguments: see ``machine_errors``; the network's own substrate takes no part.
    """

    def __init__(
        self, network: Network, x: Data, y: Target, estimator: EquilibriumPropagation, draws: int = 4, seed: int = 0
    ):
        check_batch(network, x, y)
        self.network, self.x, self.y = double(network).on(IDEAL), double_data(x), y
        self.estimator, self.draws, self.seed = estimator, draws, seed
        with undisturbed(x, [estimator]):
            self.stencil = estimator.nudging.draw()
        self.quiet = {share: self.estimated(IDEAL, share, 1)[0] for share in (1.0, NEARER)}
        self.exact, self.lack = self.exactly(IDEAL, self.quiet[1.0].free.state)

    def estimated(self, machine: Substrate, share: float, count: int) -> list[Estimate]:
        """Repeated estimates on the machine at a ``share`` of beta; only one, if the first two are the same."""
        network = self.network.on(copy.deepcopy(machine))
        stencil = self.stencil
        nudging = Stencil(tuple(share * b for b in stencil.betas), tuple(w / share for w in stencil.weights))
        estimator = phases_apart(replace(self.estimator, nudging=nudging), machine)
        found: list[Estimate] = []
        with undisturbed(self.x, [estimator]):
            for k in range(count):
                torch.manual_seed(self.seed + k)
                found.append(estimate(network, estimator, self.x, self.y))
                if k == 1 and torch.equal(*(as_vector(each.gradients) for each in found)):
                    return found[:1]
        return found

    def exactly(self, made: Substrate, state: State) -> tuple[Tensor, Tensor]:
        """The exact gradient on a machine as made, and what the limit of small nudges lacks; (parameters,) each."""
        network = self.network.on(made)
        exact = as_vector(exact_gradients(network, state, self.x, self.y))
        if reciprocal_terms(network, self.x):
            return exact, torch.zeros_like(exact)
        limit = InfinitesimalNudge(onward(state), UntilConverged(1e-10, 1000))
        return exact, as_vector(estimate(network, limit, self.x, self.y).gradients) - exact

    def made(self, machine: Substrate) -> tuple[dict[float, Estimate], Tensor, Tensor]:
        """On the machine as it was made: the estimate at each share of beta, the exact gradient and what lacks."""
        made = machine.as_made()
        if made.is_ideal:
            return self.quiet, self.exact, self.lack
        quiet = {share: self.estimated(made, share, 1)[0] for share in self.quiet}
        return quiet, *self.exactly(made, quiet[1.0].free.state)

    def added(self, name: str, machine: Substrate) -> Added:
        """What the machine adds."""
        quiet, exact, lack = self.made(machine)
        size = float(exact.norm())
        if not size:
            raise InputError("The exact gradient of this batch is 0: there is nothing to compare an error with.")
        more, squares = lack - self.lack, {}
        for share, each in quiet.items():
            right = as_vector(each.gradients)
            found = [as_vector(noisy.gradients) - right for noisy in self.estimated(machine, share, self.draws)]
            squares[share] = torch.stack(found).square().mean(0)
            check_finite("estimate on this machine", {"": squares[share]})
        by_beta, fixed = divided({share: math.sqrt(float(each.sum())) / size for share, each in squares.items()})
        fixed = math.hypot(fixed, float(more.norm()) / size)
        parameters = learning(self.network)
        counts = [parameter.numel() for parameter in parameters.values()]
        tensors = zip((squares[1.0] + more.square()).split(counts), exact.split(counts), strict=True)
        errors = [math.sqrt(float(error.sum())) / float(of.norm()) if of.any() else 0.0 for error, of in tensors]
        where = max(range(len(errors)), key=errors.__getitem__)
        effect, remedy = (laws.told(type(machine), title) for title in ("Effect", "Remedy"))
        own = relative_error(as_vector(quiet[1.0].gradients) - more, exact)
        at = errors[where], list(parameters)[where]
        return Added(name, repr(machine), by_beta, fixed, own, relative_error(exact, self.exact), *at, effect, remedy)

    def tried(self, name: str, machine: Substrate) -> Added:
        """What the machine adds, or the problem with it."""
        try:
            return self.added(name, machine)
        except Exception as error:  # a substrate may be a user's code; the others must continue
            return Added(name, repr(machine), problem=told(error))


def numbered(names: Sequence[str]) -> list[str]:
    """The names, those that occur more than once with numbers."""
    counts, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name} {seen[name]}" if counts[name] > 1 else name)
    return found
