"""How good the estimator's gradient is, and what a step costs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

from eqprop.diagnostics.check import OWN, beta_of, standard
from eqprop.diagnostics.comparison import Comparison, compare, percent, short
from eqprop.diagnostics.gradients import check_batch, estimate, undisturbed
from eqprop.diagnostics.stability import stability
from eqprop.diagnostics.verdict import verdict
from eqprop.energy import Network, Target
from eqprop.energy.network import Data
from eqprop.errors import EqpropError, one_line
from eqprop.learning import Backpropagation, Estimator
from eqprop.report.blocks import Block, Table, Text, number
from eqprop.report.subject import LATE, Clock, TimeOver, Trained

EXAMPLES = (16, 4)
"""How many are compared, if time allows."""
TIMES = 30
"""A comparison takes about as many times the seconds of one estimate: its reference settles in float64."""
INFINITESIMAL = "infinitesimal nudge"
REPEATS = 3


def blocks(trained: Trained, clock: Clock) -> Iterator[Block]:
    """The verdict on the estimator, its numbers, and the cost of a step.

    Args:
        trained: with training data.
        clock: of the report.
    """
    network, own = trained.model.network, trained.model.estimator
    assert trained.train is not None
    device = next(network.parameters()).device
    if isinstance(own, Backpropagation):
        yield Text("Backpropagation gives the exact gradient of the feedforward network: there is nothing to compare.")
        return
    for count in EXAMPLES:
        x, y = trained.train.to(device).sample(count)
        try:
            check_batch(network, x, y)
            with clock.limiting():
                took = seconds(lambda x=x, y=y: estimate(network, own, x, y), x, own, repeats=1)  # type: ignore[misc]
                if took * TIMES > clock.left() and count != EXAMPLES[-1]:
                    continue
                yield from compared(network, own, x, y, count, clock)
            break
        except TimeOver:
            raise
        except EqpropError as error:
            yield Text(f"The estimator cannot be compared with the exact gradient: {one_line(error)}", "warning")
            break
    yield from cost(trained, clock)


def compared(network: Network, own: Estimator, x: Data, y: Target, count: int, clock: Clock) -> Iterator[Block]:
    among = {OWN: own}
    if isinstance(x, torch.Tensor):
        among[INFINITESIMAL] = standard(network, x, own, beta_of(own))["infinitesimal"]
    found = compare(network, x, y, among)
    if clock.left() < 0:  # a failure of the comparison may then be of the clock
        raise TimeOver(LATE)
    exact = INFINITESIMAL if INFINITESIMAL in among else ""
    says = verdict(found, OWN, exact)
    tone = "good" if "good" in says[:16] else "bad" if "poor" in says[:16] or "no gradient" in says else "warning"
    if tone != "good":
        with contextlib.suppress(EqpropError):  # a unit without a derivative, or no time left
            says = verdict(found, OWN, exact, stable=stability(network, own, x, y))
    yield Text(says, tone)
    yield Text(
        f"The gradient of the run's own estimator on {count} training examples, against the exact gradient at its "
        "own equilibrium, by implicit differentiation in 64 bits. A cosine of 1 is the same direction; of 0.9 still "
        "a direction that learns. The second estimator is the limit of small nudges with the same free phase: if it is "
        "good and the first is not, the nudge is too large."
    )
    yield table(found)


def table(found: Comparison) -> Table:
    """The rows of a comparison."""
    rows = []
    for row in found.rows:
        numbers = (
            [row.problem, "", "", ""]
            if row.problem
            else [f"{row.cosine:.4f}", number(row.error), f"{row.norm_ratio:.3f}", percent(row.wrong_signs)]
        )
        rows.append((row.estimator, short(row.parameter), *numbers))
    header = ("estimator", "parameter", "cosine", "relative error", "ratio of norms", "wrong signs")
    return Table("Gradients against the exact one, tensor by tensor", header, rows)


def cost(trained: Trained, clock: Clock) -> Iterator[Block]:
    """What a step of the estimator costs in steps of backpropagation through the same weights, if that is quick."""
    network, own = trained.model.network, trained.model.estimator
    assert trained.train is not None
    count = min(trained.train.size(0), len(trained.train))
    x, y = trained.train.to(next(network.parameters()).device).sample(count)
    try:
        with clock.limiting():
            mine = seconds(lambda: estimate(network, own, x, y), x, own)
            theirs = seconds(lambda: estimate(network, Backpropagation(), x, y), x, own)
    except EqpropError:  # a network without a feedforward pass, or too slow a one
        return
    threads = torch.get_num_threads()
    yield Text(
        f"A step of {count} examples costs {mine / theirs:.1f} steps of backpropagation through the same weights as a "
        f"feedforward network: {1e3 * mine:.1f} ms against {1e3 * theirs:.1f} ms, the fastest of {REPEATS}, on "
        f"{threads} thread{'s' * (threads > 1)} of the machine that made this page."
    )


def seconds(do: Callable[[], object], x: Data, own: Estimator, repeats: int = REPEATS) -> float:
    """The shortest time that ``do`` takes, without a change to any random generator."""
    found = []
    for _ in range(repeats):
        with undisturbed(x, [own]):
            begin = time.perf_counter()
            do()
            found.append(time.perf_counter() - begin)
    return min(found)
