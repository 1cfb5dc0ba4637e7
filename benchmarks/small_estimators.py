"""Recipes that differ from ``cifar10-small`` in the estimator only, to compare their accuracy.

    cd benchmarks
    python time_to_accuracy.py --data CIFAR10 --seeds 0 1 2 --epochs 1 --precision bf16 --recipes cifar10-small
        small_estimators.py:undamped small_estimators.py:one_sided small_estimators.py:one_sided_states
        small_estimators.py:symmetric
    python time_to_accuracy.py --data CIFAR10 --seeds 0 1 2 --precision 32 --recipes small_estimators.py:paper_schedule

The recipes of the first command have nudged phases of two sweeps or iterations, as ``cifar10-small``: accuracy at
equal cost. Sweeps go from the output backwards, so that each reaches every layer; ``symmetric`` has two such phases.
``paper_schedule`` is a substitute for ``cifar10-small-paper-schedule``, for accuracy, not for time. How close their
gradients are, on initial and on trained weights, and how close the schedule is to nudged phases that settle:

    python small_estimators.py --data CIFAR10 [--weights RUN/last-....safetensors ...]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import Row, gradients, images, load, machine, show, write

import eqprop as ep
from eqprop.recipes.small import cifar10_small, cifar10_small_paper_schedule
from eqprop.training.loop import Experiment

SWEEPS = ep.FixedSweeps(2, ep.settling.backward_order)


def undamped(**common: Any) -> Experiment:
    """Conjugate gradients on the exact response."""
    return cifar10_small(damping=0.0, **common)


def one_sided(**common: Any) -> Experiment:
    """A small finite nudge, in the form ``displacements``."""
    return finite(cifar10_small(**common), ep.one_sided(0.01), ep.learning.forms.displacements)


def one_sided_states(**common: Any) -> Experiment:
    """The same nudge in the form ``states``."""
    return finite(cifar10_small(**common), ep.one_sided(0.01), ep.learning.forms.states)


def symmetric(**common: Any) -> Experiment:
    """Nudges and form of Laborieux et al. (2021)."""
    return finite(cifar10_small(**common), ep.symmetric(1.0), ep.learning.forms.states)


def paper_schedule(**common: Any) -> Experiment:
    """``cifar10-small-paper-schedule``, but an image stops when it has settled in its free phase."""
    run = cifar10_small_paper_schedule(**common)
    assert isinstance(run.model.estimator, ep.EquilibriumPropagation)
    free = run.model.estimator.free
    assert isinstance(free, ep.FixedSweeps)
    run.model.estimator = replace(run.model.estimator, free=ep.UntilConverged(1e-4, free.n, free.sweep))
    return run


def finite(run: Experiment, stencil: ep.learning.Stencil, form: ep.learning.Form) -> Experiment:
    assert isinstance(run.model.estimator, ep.InfinitesimalNudge)
    run.model.estimator = ep.EquilibriumPropagation(stencil, run.model.estimator.free, SWEEPS, form=form)
    return run


def tables(options: argparse.Namespace) -> dict[str, Any]:
    """The gradient of the paper schedule, of its substitute, and of nudged phases that settle."""
    rows: list[Row] = []
    x, y = images(options.data, options.images)
    substitute = paper_schedule(data=options.data).model.estimator
    for source in ("", *options.weights):
        torch.manual_seed(0)
        run = cifar10_small_paper_schedule(data=options.data)
        if source:
            load(run.model.network, source)
        assert isinstance(run.model.estimator, ep.EquilibriumPropagation)
        longer = replace(run.model.estimator, nudged=ep.FixedSweeps(300, ep.synchronous))
        paper, found, settled = (
            gradients(ep.Equilibrium(run.model.network, each), "float32", x, y)
            for each in (run.model.estimator, substitute, longer)
        )
        rows.append(
            {
                "weights": Path(source).parent.name or "initial",
                "free_sweeps_of_substitute": float(found[1].sweeps.float().mean()),
                "difference_of_substitute": max(
                    float((a - b).norm() / b.norm()) for a, b in zip(found[0], paper[0], strict=True)
                ),
                "cosine_with_300_nudged_sweeps": min(
                    float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))
                    for a, b in zip(paper[0], settled[0], strict=True)
                ),
            }
        )
    show(f"the paper schedule's gradient in its worst layer; {options.images} images", rows)
    return {"paper_schedule": rows}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="uoft-cs/cifar10", help="CIFAR-10, a folder or hub name")
    made.add_argument("--weights", nargs="*", default=[], help="checkpoints of the small network")
    made.add_argument("--images", type=int, default=64)
    return made


if __name__ == "__main__":
    write("small_estimators", tables(parser().parse_args()) | {"machine": machine()})
