"""What a comparison with the exact gradient means, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from eqprop.diagnostics.bias import Suggestion
from eqprop.diagnostics.comparison import Comparison, most, short
from eqprop.diagnostics.machine import Added, MachineErrors

GOOD, USABLE = 0.99, 0.9
"""Cosines of the worst tensor from which an estimate is called good, and usable."""
AT_REST = 1e-2
"""A residual up to which a phase is called settled."""


HARMLESS = 0.1
"""A relative error of each tensor up to which a machine needs no change: cosines stay above 0.995."""

FITS = 0.05
"""A relative distance of two exact gradients up to which weights of one machine fit another."""
SEEN = 1e-3
"""A relative error of the gradient above which what beta divides on a machine counts as its noise."""


def verdict(comparison: Comparison, name: str, exact: str = "", corrected: str = "", why: str = "") -> str:
    """A sentence on an estimator: good, usable or poor, why, and what to change.

    Args:
        comparison: of the estimator with the exact gradient.
        name: of the estimator in it.
        exact: of one in it that has the same phases but no nudge of finite size; it tells bias from settling.
        corrected: of one in it that has the same phases with the teacher ``corrected``; it tells the bias of feedback
            that is not symmetric.
        why: the reason, if it is known already.

    Raises:
        InputError: the comparison has no such estimator.
    """
    worst = comparison.worst(name)
    if worst.problem:
        return f"Verdict: no gradient. {worst.problem}"
    rows = [row for row in comparison.rows if row.estimator == name and row.parameter != "all"]
    low = min(rows, key=lambda row: row.cosine, default=comparison.of(name))
    whole = comparison.of(name)
    text = f"a cosine of {whole.cosine:.4f} to the exact gradient, at least {low.cosine:.4f} ({short(low.parameter)})"
    if low.cosine >= GOOD:
        return f"Verdict: good, {text}."
    settling = comparison.settling[name]
    free = max(settling.free_residual.values(), default=0.0)
    nudged = max((settling.nudged_residual or {}).values(), default=0.0)
    if why:
        pass
    elif free > AT_REST:
        why = f"the free phase has not settled ({most(settling.free_residual)}): take more free sweeps"
    elif nudged > AT_REST:
        why = f"a nudged phase has not settled ({most(settling.nudged_residual)}): take more nudged sweeps"
    elif good(comparison, corrected):
        why = "feedback is not the transpose of feedforward: take the teacher corrected and the rule vector_field"
    elif good(comparison, exact):
        why = "the nudge is too large for this network: take a smaller beta, or a stencil of a higher order"
    else:
        why = "the response has not crossed the network: take more nudged sweeps, or check the units' slopes"
    return f"Verdict: {'usable' if low.cosine >= USABLE else 'poor'}, {text}; {why}."


def machine_verdict(errors: MachineErrors, suggestions: Mapping[str, Suggestion], betas: tuple[float, float]) -> str:
    """Sentences on a machine: which of its faults dominates, what it adds, and what to change.

    Args:
        errors: of the machine and its faults.
        suggestions: name of a stencil -> its best beta on this machine, as far as they could be measured.
        betas: the smallest and the largest that the suggestions were measured at.
    """
    ranked, whole = errors.ranked, errors.whole
    if whole.problem or not ranked:
        return f"Verdict on the machine: not measured. {whole.problem or errors.parts[0].problem}"
    said = [judged(errors, suggestions, betas)]
    if whole.moved > FITS:
        most_moved = max(ranked, key=lambda part: part.moved).name
        said.append(
            f"Its exact gradient is {whole.moved:.2g} away from the ideal network's, most by {most_moved}: weights "
            "that were learnt on another machine do not fit it."
        )
    if left := [part.name for part in errors.parts if part.problem]:
        said.append(f"Not measured: {', '.join(left)}.")
    return " ".join(said)


def judged(errors: MachineErrors, suggestions: Mapping[str, Suggestion], betas: tuple[float, float]) -> str:
    """On the error of learning in situ."""
    (first, *others), whole = errors.ranked, errors.whole
    if whole.worst <= HARMLESS:
        return (
            f"Verdict on the machine: good. Remedy: none needed when learning in situ. {added(whole, 'It')}"
            f"{f', most by {first.name}' if others and whole.error else ''}."
        )
    if others:
        said = [f"Verdict on the machine: {first.name} dominates. {remedied(first, 'Alone it')}"]
    else:
        said = [f"Verdict on the machine: {remedied(first, f'{first.name}, its only fault,')}"]
    said += [f"Next: {remedied(each, each.name)}" for each in others[:1] if each.error > first.error / 2]
    alone = math.hypot(*(each.error for each in errors.ranked))
    if others and whole.error > 1.5 * alone:
        said.append(f"All together add {whole.error:.2g}, more than the {alone:.2g} of each alone.")
    if whole.own > whole.error:
        said.append(f"The nudge and the settling are a larger error, {whole.own:.2g}: see the first verdict.")
    if whole.by_beta > max(whole.fixed, SEEN) and suggestions:
        name, best = min(suggestions.items(), key=lambda item: item[1].error)
        said.append(
            f"Best beta on this machine: {best.beta:.2g} ({name}), with an error of up to "
            f"{best.error + whole.fixed:.2g}, what is fixed included."
            if best.beta <= betas[1]
            else f"No beta from {betas[0]:g} to {betas[1]:g} outweighs it."
        )
    return " ".join(said)


def added(part: Added, name: str) -> str:
    """What a fault adds: a sentence without its full stop."""
    text = f"{name} adds a relative error of {part.error:.2g} to the gradient"
    return f"{text}, of up to {part.worst:.2g} to a tensor's ({short(part.where)})" if part.worst > part.error else text


def remedied(part: Added, name: str) -> str:
    """What a fault adds, and its remedy."""
    if part.by_beta > part.fixed:
        kind, own = "beta divides it", "a larger beta, or phases that share what differs between them"
    else:
        kind, own = "it is the same at every beta", "a machine with less of it"
    return f"{added(part, name)}; {kind}. Remedy: {part.remedy or own}."


def good(comparison: Comparison, name: str) -> bool:
    """Whether there is a name, and its estimator is good in every tensor."""
    return bool(name) and not comparison.of(name).problem and comparison.worst(name).cosine >= GOOD
