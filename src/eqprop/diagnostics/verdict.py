"""What a comparison with the exact gradient means, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eqprop.diagnostics.bias import Suggestion
from eqprop.diagnostics.comparison import Comparison, Row, most, percent, short
from eqprop.diagnostics.machine import Added, MachineErrors
from eqprop.diagnostics.stability import Stability

GOOD, USABLE = 0.99, 0.9
"""Cosines of the worst tensor from which an estimate is called good, and usable."""
UNEVEN = 2.0
"""A ratio of lengths, over those of the exact gradient, from which tensors are said to learn at uneven rates."""
SHORT = "A damped response is short where the network is slow: lower the damping, or give layers rates of their own."
AT_REST = 1e-2
"""A residual up to which a phase is called settled."""
NEAR = 0.9
"""A contraction from which a network is called near instability: 22 sweeps divide a disturbance by ten."""

HARMLESS = 0.1
"""A relative error of each tensor up to which a machine needs no change: cosines stay above 0.995."""

FITS = 0.05
"""A relative distance of two exact gradients up to which weights of one machine fit another."""
SEEN = 1e-3
"""A relative error of the gradient above which what beta divides on a machine counts as its noise."""


def verdict(
    comparison: Comparison,
    name: str,
    exact: str = "",
    corrected: str = "",
    why: str = "",
    stable: Stability | None = None,
) -> str:
    """Sentences on an estimator: how good it is and what is wrong, in words; then the numbers, and what to change.

    Args:
        comparison: of the estimator with the exact gradient.
        name: of the estimator in it.
        exact: of one in it that has the same phases but no nudge of finite size; it tells bias from settling.
        corrected: of one in it that has the same phases with the teacher ``corrected``; it tells the bias of feedback
            that is not symmetric.
        why: the reason, if it is known already, after what is wrong and a colon.
        stable: the equilibria that the estimator found.

    Raises:
        InputError: the comparison has no such estimator.
    """
    worst = comparison.worst(name)
    if worst.problem:
        return f"Verdict: no gradient. {worst.problem}"
    rows = [row for row in comparison.rows if row.estimator == name and row.parameter != "all"]
    low = min(rows, key=lambda row: row.cosine, default=comparison.of(name))
    whole = comparison.of(name)
    text = f"Its cosine to the exact gradient is {whole.cosine:.4f}"
    if len(rows) > 1:
        text += f", and {low.cosine:.4f} in the worst tensor ({short(low.parameter)})"
    lengths = uneven_lengths(rows)
    if low.cosine >= GOOD and not lengths:
        return f"Verdict: good. {text}."
    if low.cosine >= GOOD:
        return f"Verdict: usable, but of uneven length. {text}. {lengths} {SHORT}"
    wrong, _, reason = (why or cause(comparison, name, exact, corrected, stable)).partition(": ")
    grade = "usable, but" if low.cosine >= USABLE else "poor,"
    return f"Verdict: {grade} {wrong}. {text}. {reason[:1].upper()}{reason[1:]}. {lengths}".rstrip()


def uneven_lengths(rows: Sequence[Row]) -> str:
    """What it means that the gradients of some tensors are shorter than those of others; "" if they are even."""
    known = [row for row in rows if 0 < row.norm_ratio < math.inf]
    least, longest = (choose(known, key=lambda row: row.norm_ratio, default=None) for choose in (min, max))
    if least is None or longest is None or longest.norm_ratio < UNEVEN * least.norm_ratio:
        return ""
    return (
        f"Its length is {least.norm_ratio:.2g} times that of the exact one in {short(least.parameter)}, and "
        f"{longest.norm_ratio:.2g} times in {short(longest.parameter)}: learning rates act as if multiplied by that."
    )


def cause(comparison: Comparison, name: str, exact: str, corrected: str, stable: Stability | None) -> str:
    """What is wrong with an estimator that is not good, a colon, and why and what to change; arguments as above."""
    settling = comparison.settling[name]
    free = max(settling.free_residual.values(), default=0.0)
    nudged = max((settling.nudged_residual or {}).values(), default=0.0)
    if stable is not None and stable.contraction >= NEAR:
        shrinks = 100 * (1 - stable.contraction)
        return (
            f"near instability: a sweep shrinks a disturbance by {max(shrinks, 0.0):.2g} % only, so the network "
            "settles slowly and its gradient is large. Train with smaller weights, weaker feedback or a penalty on "
            "slow settling; more sweeps help only for a while"
        )
    if free > AT_REST:
        return f"not settled: the free phase still moves ({most(settling.free_residual)}). Take more free sweeps"
    if nudged > AT_REST:
        return f"not settled: a nudged phase still moves ({most(settling.nudged_residual)}). Take more nudged sweeps"
    if stable is not None and stable.elsewhere:
        return (
            f"wrong equilibrium: without the nudge, {percent(stable.elsewhere)} of the nudged states settle to another "
            "equilibrium than the free one. Take a smaller beta"
        )
    if settling.nudged_settled < 1:
        return (
            f"not settled: {percent(1 - settling.nudged_settled)} of the nudged phases ended before they were at rest, "
            "or before the nudge had crossed the network. Take more nudged sweeps"
        )
    if good(comparison, corrected):
        return (
            "biased by its feedback: feedback is not the transpose of feedforward. Take the teacher corrected and the "
            "rule vector_field"
        )
    if good(comparison, exact):
        return (
            "biased by beta: the nudge is too large for this network. Take a smaller beta, or a stencil of a higher "
            "order"
        )
    return (
        "not settled: the response to the nudge has not crossed the network. Take more nudged sweeps, or check the "
        "units' slopes"
    )


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
