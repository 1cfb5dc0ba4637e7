"""Networks and estimators in words."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from typing import Any

from eqprop.energy import Network
from eqprop.energy.units import Unit
from eqprop.learning.estimators import Estimator
from eqprop.learning.forms import Form
from eqprop.learning.stencils import Stencil
from eqprop.learning.teachers import Teacher
from eqprop.report.blocks import Table, number
from eqprop.settling import FixedSweeps, FromFeedforward, UntilConverged

LONGEST = 160
"""Characters of a cell."""

NAMES = {
    "nudging": "nudges",
    "free": "free phase",
    "nudged": "nudged phases",
    "rule": "rule",
    "form": "what settles in nudged phases",
    "teacher": "teacher",
    "stacked": "phases settle in one batch",
    "there_and_back": "phases read twice, in the order A B B A",
    "response": "response",
    "damping": "damping",
}
"""The attributes of estimators in words."""


def short(value: object) -> str:
    """A text of at most ``LONGEST`` characters."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def told(value: Any) -> str:
    """A part of an estimator in a few words."""
    if isinstance(value, FixedSweeps):
        return f"{value.n} {name_of(value.sweep)} sweeps"
    if isinstance(value, UntilConverged):
        faster = f", over-relaxed up to {value.over_relaxation:g}" if value.over_relaxation > 1 else ""
        return (
            f"{name_of(value.sweep)} sweeps until the distance to rest is below {value.tolerance:g} "
            f"({name_of(value.norm)}), at most {value.max_sweeps}{faster}"
        )
    if isinstance(value, FromFeedforward):
        return f"from a feedforward pass, {told(value.solver)}"
    if isinstance(value, Stencil):
        return "beta " + ", ".join(complex_number(each) for each in value.betas)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Teacher | Form):
        return summary_of(value)
    if is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(f"{each.name} {told(getattr(value, each.name))}" for each in fields(value))
        return short(f"{type(value).__name__}" + (f" ({inner})" if inner else ""))
    return short(name_of(value) if callable(value) else value)


def complex_number(value: complex) -> str:
    if isinstance(value, complex):
        return f"{value.real:.3g}{value.imag:+.3g}i"
    return f"{value:+g}" if value else "0"


def name_of(value: Any) -> str:
    """The name of a function or a class, in words."""
    return str(getattr(value, "__name__", type(value).__name__)).replace("_", " ")


def summary_of(value: object) -> str:
    """The first line of the documentation of a class or a function."""
    kind = value if inspect.isfunction(value) or inspect.isclass(value) else type(value)
    lines = (inspect.getdoc(kind) or "").splitlines()
    return short(lines[0]) if lines else ""


def of_estimator(estimator: Estimator) -> tuple[str, list[tuple[str, str]]]:
    """What an estimator does, and its settings.

    Args:
        estimator: any.
    """
    parts: list[str] = [each.name for each in fields(estimator)] if is_dataclass(estimator) else []
    pairs = [(NAMES.get(name, name), told(getattr(estimator, name))) for name in parts]
    return f"{type(estimator).__name__}: {summary_of(estimator)}", pairs


def of_unit(unit: Unit | None) -> str:
    """How a node's units respond."""
    return "held at the data" if unit is None else short(repr(unit))


def of_network(network: Network) -> list[Table]:
    """The layers of a network, and what couples them, with numbers of parameters.

    Args:
        network: any.
    """
    nodes = []
    for name, node in network.nodes.items():
        held = name in network.clamped
        dropped = f", dropout {node.dropout:g}" if node.dropout else ""
        role = "input" if held else "output" if name == network.output else "hidden"
        nodes.append(
            (
                short(name),
                role,
                "x".join(map(str, node.shape)),
                f"{node.units:,}",
                "held at the data" if held else of_unit(node.unit) + dropped,
            )
        )
    parts: dict[str, Any] = {**network.terms}
    if network.loss is not None:
        parts["loss"] = network.loss
    couplings = []
    for name, part in parts.items():
        inner = ", ".join(type(each).__name__ for each in part.children())
        count = sum(parameter.numel() for parameter in part.parameters())
        over = " - ".join(part.nodes)
        couplings.append((short(name), type(part).__name__, short(over), inner or "-", f"{count:,}"))
    return [
        Table("Layers", ("layer", "role", "shape", "units", "response"), nodes),
        Table("What couples them", ("name", "kind", "between", "map", "parameters"), couplings),
    ]
