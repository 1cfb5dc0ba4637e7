"""Rates that are read as counts of spikes, and the rule of a synapse that hears spikes alone.

A count over a window of n steps is a converter. Units that integrate their rate spike regularly and are read within one
spike, so the error of a gradient falls as 1 / (beta n); units that spike at random, as 1 / (beta sqrt(n)).

In continual equilibrium propagation (Ernoult et al. 2020, arXiv 2005.04168) a weight follows the change of the product
of its two ends' rates, d(a b) = a db + b da. ``event_rule`` computes it from spikes: each end's low-passed spikes are
multiplied by the change of the other's, and the sum over a phase is exactly the change of the product of traces.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.checks import Count, Positive, checked
from eqprop.energy.nodes import State
from eqprop.energy.substrate import Substrate
from eqprop.errors import InputError


@dataclass(frozen=True)
class SpikeCounts(Substrate):
    """The base of substrates that measure each unit by its spikes in a window, drawn from torch's generator.

    A state s is a rate (s - low) / (high - low) in spikes a step; units beyond ``low`` or ``high`` are read as these.

    Attributes:
        window: n, the steps of the window.
        low, high: the states of rates 0 and 1.

    Raises:
        InputError: the window is below 1, or low not below high; in use, a state is complex.
    """

    window: Count
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"low {self.low:g}, high {self.high:g}: low must be below high.")

    def measured(self, state: State, reading: int) -> State:
        span = self.high - self.low
        if any(value.is_complex() for value in state.values()):
            raise InputError(f"{self}: a rate is a real number, and this state is complex: take real nudges.")

        def read(value: Tensor) -> Tensor:
            rate = ((value.double() - self.low) / span).clamp(0, 1)  # counts of a long window need many digits
            return (self.low + span * self.counted(rate) / self.window).to(value)

        return {node: read(value) for node, value in state.items()}

    @abstractmethod
    def counted(self, rate: Tensor) -> Tensor:
        """The spikes in the window of units of these rates in [0, 1]."""


@dataclass(frozen=True)
class RegularSpikes(SpikeCounts):
    """Units that integrate their rate and spike at each whole number, from a random first phase u: floor(n rate + u).

    ``window``, ``low``, ``high``: see ``SpikeCounts``.

    Raises:
        InputError: see ``SpikeCounts``.
    """

    def counted(self, rate: Tensor) -> Tensor:
        return (self.window * rate + torch.rand_like(rate)).floor()


@dataclass(frozen=True)
class RandomSpikes(SpikeCounts):
    """Units that spike in each step with the probability of their rate, as Poisson units of low rate do.

    ``window``, ``low``, ``high``: see ``SpikeCounts``.

    Raises:
        InputError: see ``SpikeCounts``.
    """

    def counted(self, rate: Tensor) -> Tensor:
        return torch.binomial(torch.full_like(rate, self.window), rate)


class Events(NamedTuple):
    """What ``event_rule`` finds.

    Attributes:
        change: (n, m), the sum over the phase for each synapse.
        pre, post: (n,) and (m,), the traces at its end.
    """

    change: Tensor
    pre: Tensor
    post: Tensor


@checked
def event_rule(
    pre: Tensor, post: Tensor, time_constant: Positive, started: tuple[Tensor, Tensor] | None = None
) -> Events:
    """The sum over spikes of (mean trace of one end) x (change of the other's trace), both ways.

    Units integrate their rates and spike at whole numbers. A trace is the spikes, low-passed: f <- f + (spike - f) /
    time_constant, from the first rate. The sum telescopes: it is f g at the end less f g at the start, for traces f and
    g of the two ends, whatever the spikes.

    Args:
        pre, post: (steps, n) and (steps, m), rates in [0, 1] spikes a step.
        time_constant: of the traces, in steps; at least 1.
        started: the integrators' first values in [0, 1), (n,) and (m,); default: drawn from torch's generator.

    Returns:
        The change for each synapse, and the traces at the end.

    Raises:
        InputError: rates are not in [0, 1] or of different lengths, or the time constant is below 1.
    """
    if pre.ndim != 2 or post.ndim != 2 or len(pre) != len(post) or not len(pre):
        raise InputError(f"Rates are (steps, n) and (steps, m), not {tuple(pre.shape)} and {tuple(post.shape)}.")
    if time_constant < 1:
        raise InputError(f"time_constant {time_constant:g}: a trace needs a step or more.")
    for name, rates in (("pre", pre), ("post", post)):
        if not bool(((rates >= 0) & (rates <= 1)).all()):
            raise InputError(f"{name} holds rates outside [0, 1] spikes a step.")
    ends = (pre, post)
    sums = list(started) if started is not None else [torch.rand_like(rates[0]) for rates in ends]
    traces = [rates[0] for rates in ends]
    change = pre.new_zeros(pre.shape[1], post.shape[1])
    for now in zip(pre, post, strict=True):
        before = traces
        sums = [total + rate for total, rate in zip(sums, now, strict=True)]
        spikes = [total.floor() for total in sums]
        sums = [total - spike for total, spike in zip(sums, spikes, strict=True)]
        traces = [f + (spike - f) / time_constant for f, spike in zip(before, spikes, strict=True)]
        means = [(f + g) / 2 for f, g in zip(before, traces, strict=True)]
        steps = [g - f for f, g in zip(before, traces, strict=True)]
        change = change + torch.outer(means[0], steps[1]) + torch.outer(steps[0], means[1])
    return Events(change, *traces)
