"""The error of estimators, tensor by tensor, relative to an exact gradient."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from eqprop.diagnostics.gradients import Estimate, Named, as_vector, check_batch, estimate, relative_error, undisturbed
from eqprop.diagnostics.references import Reference, implicit
from eqprop.diagnostics.switching import clipped_units, switched_windows
from eqprop.energy import Network, Target
from eqprop.energy.network import Data
from eqprop.errors import InputError, needing_extra
from eqprop.files import one_line
from eqprop.learning.estimators import EquilibriumPropagation, Estimator
from eqprop.settling.solvers import Solution, Status

if TYPE_CHECKING:
    from rich.table import Table

ALL = "all"
NOTHING = math.nan


@dataclass(frozen=True)
class Row:
    """One estimator against one reference, for one parameter tensor or for all together.

    Attributes:
        estimator, reference: their names.
        parameter: its name in the network, or "all".
        cosine: between the two; 1 if both are 0, 0 if one is.
        error: |estimate - reference| / |reference|; 0 if both are 0.
        norm_ratio: |estimate| / |reference|; 1 if both are 0.
        wrong_signs: the share of entries in which the two have opposite signs; 0 has no sign.
        problem: why there are no numbers, which are then NaN; else empty.
    """

    estimator: str
    reference: str
    parameter: str
    cosine: float = NOTHING
    error: float = NOTHING
    norm_ratio: float = NOTHING
    wrong_signs: float = NOTHING
    problem: str = ""

    def numbers(self) -> list[str]:
        """The numbers as text, for a table."""
        return [f"{self.cosine:.4f}", f"{self.error:.2g}", f"{self.norm_ratio:.3f}", percent(self.wrong_signs)]


@dataclass(frozen=True)
class Settling:
    """How far an estimator's phases settled.

    Attributes:
        free_residual, nudged_residual: node -> the largest change of any of its units in the last sweep, over the
            batch (and all nudged phases); ``None`` for an estimator without nudged phases. Residuals of displacements
            and linear responses have the unit of these.
        free_sweeps, nudged_sweeps: mean over examples; the sum over all nudged phases.
        nudged_settled: the share of nudged phases of single examples that their solver calls settled.
        switched_windows, clipped_units: see ``eqprop.diagnostics.switching``; for ``EquilibriumPropagation`` only.
    """

    free_residual: dict[str, float]
    free_sweeps: float
    nudged_residual: dict[str, float] | None = None
    nudged_sweeps: float = 0.0
    nudged_settled: float = 1.0
    switched_windows: float | None = None
    clipped_units: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The result of ``compare``.

    Attributes:
        rows: for each estimator and reference, one for each parameter tensor and a last one for all of them.
        settling: estimator -> how far its phases settled; estimators that failed are left out.
    """

    rows: tuple[Row, ...]
    settling: dict[str, Settling]

    def of(self, estimator: str, parameter: str = ALL) -> Row:
        """The first row of the given estimator and parameter. Raises InputError if there is none."""
        for row in self.rows:
            if row.estimator == estimator and row.parameter == parameter:
                return row
        known = sorted({row.estimator for row in self.rows}), sorted({row.parameter for row in self.rows})
        raise InputError(f"There is no row of {estimator!r} and {parameter!r}: there are {known[0]} and {known[1]}.")

    def worst(self, estimator: str | None = None) -> Row:
        """The row of one tensor with the largest relative error, of all estimators or one; a failure is the worst."""
        rows = [
            row for row in self.rows if estimator in (None, row.estimator) and (row.parameter != ALL or row.problem)
        ]
        if not rows:
            self.of(str(estimator))  # which raises, with the names that exist
        return max(rows, key=lambda row: math.inf if math.isnan(row.error) else row.error)

    def against(self, reference: str, whole: bool = False) -> Comparison:
        """The comparison with one of the references alone; if ``whole``, only of all parameters together."""
        rows = (row for row in self.rows if row.reference == reference)
        return replace(self, rows=tuple(row for row in rows if not whole or row.parameter == ALL))

    def table(self, title: str = "") -> Table:
        """A table of all rows."""
        several = len({row.reference for row in self.rows}) > 1
        names = ["estimator", "reference", "parameter"] if several else ["estimator", "parameter"]
        about = "error: relative; ratio: of norms; signs: share of entries with the wrong one"
        table = titled(title, about, *names, *(">cosine", ">error", ">ratio", ">signs"))
        last = None
        for row in self.rows:
            pair = (row.estimator, row.reference) if several else (row.estimator,)
            given = [row.problem] if row.problem else row.numbers()
            shown = pair if pair != last else [""] * len(pair)
            table.add_row(*shown, short(row.parameter), *given, style="red" if row.problem else None)
            last = pair
        return table

    def phases(self, title: str = "") -> Table:
        """A table of ``settling``, with a row for each estimator that gave a gradient."""
        columns = ("estimator", "free residual", ">sweeps", "nudged residual", ">sweeps", ">switched", ">clipped")
        table = titled(
            title,
            "switched: windows of max pooling in which the nudge made another input the largest; clipped: of the units "
            "at an end of their range, those that the nudge moved there or away",
            *columns,
        )
        for name, went in self.settling.items():
            shares = (percent(each) for each in (went.switched_windows, went.clipped_units))
            nudged = "-" if went.nudged_residual is None else f"{went.nudged_sweeps:.4g}"
            free = [most(went.free_residual), f"{went.free_sweeps:.4g}"]
            table.add_row(name, *free, most(went.nudged_residual), nudged, *shares)
        return table

    def as_dict(self) -> dict[str, Any]:
        """The attributes, for JSON."""
        return plain(self)


def compare(
    network: Network,
    x: Data,
    y: Target,
    estimators: Mapping[str, Estimator],
    reference: Reference | Estimator | Mapping[str, Reference | Estimator] | None = None,
) -> Comparison:
    """Compare estimators with one or several reference gradients, on one batch.

    The network is evaluated without dropout and in its own precision. Nothing is changed: no ``.grad``, weight, random
    generator or mode. Every estimator gets the same random numbers from torch.

    Args:
        network: with a loss and parameters.
        x: (batch, *input shape), or for several clamped nodes a mapping from names to such.
        y: what the network's loss takes.
        estimators: name -> any ``Estimator``.
        reference: a function or object that is called as a ``Reference``, an estimator, or several of them by name.
            Default: the exact gradient at each estimator's own equilibrium (``implicit``).

    Returns:
        A row for each estimator, reference and tensor. If an estimator or its reference fails, its row has the
        ``problem``; the others are not affected.

    Raises:
        InputError: an argument does not fit; raised before any work.
    """
    references = named_references(reference)
    check_estimators(estimators)
    check_batch(network, x, y)
    network = copy.deepcopy(network).eval()
    rows: list[Row] = []
    settling = {}
    for name, estimator in estimators.items():
        with undisturbed(x, [estimator, *(each for each in references.values() if isinstance(each, Estimator))]):
            try:
                # A copy for each: an estimator that changes weights and fails must not affect the others.
                made = estimate(copy.deepcopy(network), estimator, x, y)
                check_finite("gradient", made.gradients)
                settling[name] = settled(network, estimator, made)
            except Exception as error:  # an estimator may be a user's code; the others must continue
                rows += [Row(name, against, ALL, problem=told(error)) for against in references]
                continue
            for against, each in references.items():
                try:
                    right = right_gradients(each, network, estimator, made.free, x, y)
                    rows += agreement(name, against, made.gradients, right)
                except Exception as error:
                    rows.append(Row(name, against, ALL, problem=told(error)))
    return Comparison(tuple(rows), settling)


def named_references(
    reference: Reference | Estimator | Mapping[str, Reference | Estimator] | None,
) -> dict[str, Reference | Estimator]:
    found = reference if isinstance(reference, Mapping) else {"reference": reference or implicit}
    for name, each in found.items():
        if isinstance(each, type) or not (isinstance(each, Estimator) or callable(each)):
            raise InputError(f"The reference {name!r} is {each!r}: give an estimator, or a function as Reference says.")
    if not found:
        raise InputError("There is no reference to compare with: give one, or none for the exact gradient.")
    return dict(found)


def check_estimators(estimators: Mapping[str, Estimator]) -> None:
    if not isinstance(estimators, Mapping) or not estimators:
        raise InputError("There is nothing to compare: give estimators by name, {name: estimator}.")
    for name, each in estimators.items():
        if not isinstance(each, Estimator):
            raise InputError(f"{name!r} is {each!r}, not an Estimator: give an instance of a subclass.")


def check_finite(what: str, gradients: Named) -> None:
    if not bool(as_vector(gradients).isfinite().all()):
        raise InputError(f"The {what} is not finite.")


def right_gradients(
    reference: Reference | Estimator, network: Network, estimator: Estimator, free: Solution, x: Data, y: Target
) -> Named:
    if isinstance(reference, Estimator):
        return estimate(copy.deepcopy(network), reference, x, y).gradients
    return reference(network, estimator, free, x, y)


def agreement(estimator: str, reference: str, found: Named, right: Named) -> list[Row]:
    """A row for each tensor, and one for all."""
    if missing := [name for name in found if name not in right]:
        raise InputError(f"The reference {reference!r} gives no gradient for {missing}.")
    right = {name: right[name] for name in found}
    check_finite("reference", right)
    pairs = {name: (as_vector({name: found[name]}), as_vector({name: right[name]})) for name in found}
    pairs[ALL] = (as_vector(found), as_vector(right))
    return [Row(estimator, reference, name, *measures(a, b)) for name, (a, b) in pairs.items()]


def measures(found: Tensor, right: Tensor) -> tuple[float, float, float, float]:
    """Cosine, relative error, norm ratio and share of wrong signs, as ``Row`` defines them; (n,) float64 each."""
    size, right_size = float(found.norm()), float(right.norm())
    wrong = float((found * right < 0).double().mean())
    error = relative_error(found, right)
    if not size and not right_size:
        return 1.0, error, 1.0, wrong
    if not size or not right_size:
        return 0.0, error, size / right_size if right_size else math.inf, wrong
    cosine = float((found / size) @ (right / right_size))
    return max(-1.0, min(1.0, cosine)), error, size / right_size, wrong


def settled(network: Network, estimator: Estimator, made: Estimate) -> Settling:
    free, nudged = made.free, made.nudged
    went = Settling(worst_changes(free), float(free.sweeps.double().mean()))
    if nudged is None:
        return went
    sweeps = float(nudged.sweeps.double().sum()) / len(free.sweeps)
    at_rest = float((nudged.status == Status.SETTLED).double().mean())
    went = replace(went, nudged_residual=worst_changes(nudged), nudged_sweeps=sweeps, nudged_settled=at_rest)
    if not isinstance(estimator, EquilibriumPropagation):  # the nudged phase of others may be a response, or complex
        return went
    pair = network, free.state, nudged.state
    return replace(went, switched_windows=switched_windows(*pair), clipped_units=clipped_units(*pair))


def worst_changes(solution: Solution) -> dict[str, float]:
    return {node: float(change.max()) for node, change in solution.residuals.items()}


# -- tables --


def titled(title: str, caption: str, *columns: str) -> Table:
    """A table without rows. A column whose name begins with ``>`` holds numbers."""
    with needing_extra("A table"):
        from rich.table import Table
    table = Table(title=title or None, caption=caption, box=None, header_style="bold")
    table.title_justify = table.caption_justify = "left"
    for column in columns:
        number = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if number else "left", no_wrap=number)
    return table


def most(residual: dict[str, float] | None) -> str:
    """The largest residual, and its node."""
    if not residual:
        return "-"
    node = max(residual, key=residual.__getitem__)
    return f"{residual[node]:.0e} {node}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def short(parameter: str) -> str:
    """A parameter's name without the parts that all names share."""
    return parameter.removeprefix("couplings.").replace(".map.", ".")


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def plain(value: Any) -> Any:
    """The value for JSON: dataclasses as mappings, numbers that are not finite as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
