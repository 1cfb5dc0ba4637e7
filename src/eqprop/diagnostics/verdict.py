"""What a comparison with the exact gradient means, in words."""

from __future__ import annotations

from eqprop.diagnostics.comparison import Comparison, most, short

GOOD, USABLE = 0.99, 0.9
"""Cosines of the worst tensor from which an estimate is called good, and usable."""
AT_REST = 1e-2
"""A residual up to which a phase is called settled."""


def verdict(comparison: Comparison, name: str, exact: str = "", corrected: str = "") -> str:
    """A sentence on an estimator: good, usable or poor, why, and what to change.

    Args:
        comparison: of the estimator with the exact gradient.
        name: of the estimator in it.
        exact: of one in it that has the same phases but no nudge of finite size; it tells bias from settling.
        corrected: of one in it that has the same phases with the teacher ``corrected``; it tells the bias of feedback
            that is not symmetric.

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
    if free > AT_REST:
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


def good(comparison: Comparison, name: str) -> bool:
    """Whether there is a name, and its estimator is good in every tensor."""
    return bool(name) and not comparison.of(name).problem and comparison.worst(name).cosine >= GOOD
