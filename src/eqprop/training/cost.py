"""The modelled cost of training on a machine: of a step, and of a whole run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from eqprop.devices.writing import Written
from eqprop.physics import Tally, tally_of_step
from eqprop.training.loop import Experiment
from eqprop.training.metrics import Row


def names_a_machine(run: Experiment) -> bool:
    """Whether a run is on a substrate, or writes into devices: others say nothing of what a machine would need."""
    return not run.model.network.substrate.is_ideal or isinstance(run.optimizer, Written)


def tally_of_run(run: Experiment, history: Sequence[Row], processes: int = 1) -> Tally:
    """What the training steps of a run have done on its machine; predictions on held-out examples are not counted.

    Training itself counts nothing. Phases, readings and conversions of an example are those of one step, which is made
    here on a copy of the model; examples and the mean numbers of their sweeps are those of the rows of the epochs,
    which checkpoints keep and to which all processes add; what was written is in the state of the optimiser. So a
    resumed run is counted as a whole.

    Args:
        run: after its training.
        history: the rows of all its epochs.
        processes: how many have trained: the step is made on the first one's share of a batch.

    Raises:
        InputError: the estimator is one that ``eqprop.physics.Counter`` does not count.
    """
    count = max(1, run.train.size(0) // processes)
    one = tally_on(run, count)
    rows = [(round(row["examples_per_second"] * row["seconds"]), row) for row in history]
    examples, nudged = sum(made for made, _ in rows), one.phases / count - 1
    sweeps = sum(made * (row["train_free_sweeps"] + nudged * row["train_nudged_sweeps"]) for made, row in rows)
    counted = ("phases", "readings", "conversions", "nudge_conversions")
    whole = {name: round(getattr(one, name) * examples / count) for name in counted}
    return with_writing(replace(one, **whole, cell_operations=round(one.cells * sweeps)), run)


def tally_of_mean_step(run: Experiment) -> Tally:
    """A training step on a run's first batch, with the mean of what its optimiser has written in a step so far.

    Raises:
        InputError: see ``tally_of_run``.
    """
    return with_writing(tally_on(run, run.train.size(0)), run, max(1, steps_written(run)))


def tally_on(run: Experiment, count: int) -> Tally:
    """One step on the first ``count`` examples, without what it writes."""
    first = next(run.model.parameters(), torch.empty(0))
    x, y = run.train.to(first.device).sample(count)
    return tally_of_step(run.model, x, y)


def steps_written(run: Experiment) -> int:
    """How many steps a run has written into devices so far."""
    if not isinstance(run.optimizer, Written):
        return 0
    return max((state["step"] for state in run.optimizer.state.values()), default=0)


def with_writing(tally: Tally, run: Experiment, steps: int = 1) -> Tally:
    """The tally with what a run has written so far, divided by a number of steps."""
    if not isinstance(run.optimizer, Written):
        return tally
    written = run.optimizer.operations().items()
    return replace(tally, **{name: getattr(tally, name) + round(value / steps) for name, value in written})
