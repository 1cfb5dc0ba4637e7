"""Analogue arrays with converters: the product of a matrix and a vector, and an update of rank one by trains of pulses.

Functions of plain tensors, as in aihwkit 1.2.0 (Rasch et al. 2021, doi 10.1109/AICAS51828.2021.9458494).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.checks import Count, Natural, NonNegative, Positive, checked
from eqprop.devices.cells import normal


@dataclass(frozen=True, kw_only=True)
class Converters:
    """Converters at the ends of an analogue product.

    Args:
        in_step, out_step: of the converters, as shares of their range from -bound to bound; 0: exact.
        in_bound, out_bound: of what they convert; beyond they clip.
        in_noise, out_noise: standard deviations, of inputs after and of outputs before conversion.
        scaled: each example's inputs are divided by the largest of them, and its outputs multiplied by it.
        halvings: while an output of an example clips, its inputs are halved, at most so often.
    """

    in_step: NonNegative = 1 / 126
    out_step: NonNegative = 1 / 510
    in_bound: Positive = 1.0
    out_bound: Positive = 12.0
    in_noise: NonNegative = 0.0
    out_noise: NonNegative = 0.06
    scaled: bool = True
    halvings: Natural = 0


def converted(values: Tensor, step: float, bound: float) -> Tensor:
    """The nearest multiples of ``step``, a share of the range from -bound to bound, clipped there."""
    unit = 2 * bound * step
    return ((values / unit).round() * unit if step else values).clamp(-bound, bound)


@checked
def analogue_product(
    inputs: Tensor, weights: Tensor, converters: Converters, generator: torch.Generator | None = None
) -> Tensor:
    """The product of inputs and transposed weights, as an analogue array gives it: (batch, outputs).

    Args:
        inputs: (batch, inputs).
        weights: (outputs, inputs), as they are read.
        converters: at its ends.
        generator: of the noise; ``None``: the global one of PyTorch.
    """
    scale = torch.ones_like(inputs[:, :1])
    if converters.scaled:
        largest = inputs.abs().amax(1, keepdim=True)
        scale = torch.where(largest > 0, largest, 1.0)

    def once(scale: Tensor) -> Tensor:
        seen = converted(inputs / scale, converters.in_step, converters.in_bound)
        if converters.in_noise:
            seen = seen + converters.in_noise * normal(seen, generator)
        found = seen @ weights.T
        return found + converters.out_noise * normal(found, generator) if converters.out_noise else found

    found = once(scale)
    for _ in range(converters.halvings):
        clips = (found.abs() >= converters.out_bound).any(1, keepdim=True)
        if not bool(clips.any()):
            break
        scale = torch.where(clips, 2 * scale, scale)
        found = torch.where(clips, once(scale), found)
    return scale * converted(found, converters.out_step, converters.out_bound)


@checked
def coincidences(
    post: Tensor,
    pre: Tensor,
    rate: Positive,
    step: Positive,
    length: Count = 31,
    balanced: bool = True,
    fitted: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The pulses of a rank-one update by random trains on rows and columns: a cell is written where both have one.

    On average the step is rate post pre^T. With q = rate |post pre| / (step length), the counts are binomial, of
    ``length`` trials of probability q (Gokmen & Vlasov 2016, doi 10.3389/fnins.2016.00333).

    Args:
        post, pre: (outputs,) and (inputs,).
        rate: the learning rate.
        step: of one pulse.
        length: of the trains.
        balanced: rows and columns share the largest probability.
        fitted: trains are only as long as the largest product needs.
        generator: of the trains; ``None``: the global one of PyTorch.

    Returns:
        (outputs, inputs) whole numbers, with the signs of post pre^T.
    """
    largest_post, largest_pre = (float(each.abs().max()) for each in (post, pre))
    if largest_post * largest_pre == 0:
        return torch.zeros(len(post), len(pre), dtype=post.dtype, device=post.device)
    if fitted:
        length = min(length, math.ceil(rate * largest_post * largest_pre / step * (1 - 1e-6)))  # it may round above
    gain = math.sqrt(rate / (step * length))
    share = math.sqrt(largest_pre / largest_post) if balanced else 1.0
    trains = [
        torch.rand(length, len(each), generator=generator, dtype=each.dtype).to(each.device)
        < gain * factor * each.abs()
        for each, factor in ((post, share), (pre, 1 / share))
    ]
    return torch.einsum("ti,tj->ij", *(train.to(post.dtype) for train in trains)) * torch.outer(post.sign(), pre.sign())
