"""The conformance suite: what every plug-in is held to, a user's included.

Modules and networks are checked in float64 on a copy: what is passed in stays as it is.
Each check raises ``AssertionError``. Each draws from a generator that it seeds itself, and so says the same every time.
"""

from __future__ import annotations

import cmath
import copy
import math
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import ParamSpec

import torch
from torch import Tensor

from eqprop.energy.couplings import Coupling, Tangent
from eqprop.energy.losses import Loss, Target
from eqprop.energy.maps import Map, example_dims, sum_per_example
from eqprop.energy.network import Landscape, Network
from eqprop.energy.units import Unit
from eqprop.errors import InputError
from eqprop.settling.solvers import Solver, Status
from eqprop.settling.sweeps import Sweep

Arguments = ParamSpec("Arguments")


def repeatable(check: Callable[Arguments, None]) -> Callable[Arguments, None]:
    @wraps(check)
    def seeded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            check(*args, **kwargs)

    return seeded


@repeatable
def check_unit(activation: Unit, low: float = -3.0, high: float = 3.0) -> None:
    """``response(a)`` minimises ``potential(s) - a s`` over the responses there are, and rises with a.

    One that falls somewhere minimises no potential, and is held to the rest if ``potential`` says so by an InputError.
    """
    drives = torch.linspace(low, high, 601, dtype=torch.float64)
    states = activation.response(drives)
    assert activation.low <= float(states.min()), f"{activation}: a response is below `low`, {activation.low}."
    assert float(states.max()) <= activation.high, f"{activation}: a response is above `high`, {activation.high}."
    rises = bool((states.diff() >= 0).all())
    try:
        cost = activation.potential(states)[None, :] - drives[:, None] * states[None, :]
    except InputError:
        assert not rises, f"{activation}: the response rises everywhere, so it has a potential."
    else:
        assert rises, f"{activation}: the response falls somewhere."
        excess = cost.diagonal() - cost.amin(1)
        worst = int(excess.argmax())
        assert float(excess[worst]) < 1e-9, (
            f"{activation}: at drive {float(drives[worst]):g} the response {float(states[worst]):g} is not the minimum."
        )
    for size in (1.0, 1e-3, 0.0):
        change = size * torch.randn_like(drives)
        expected = activation.response(drives + change) - activation.response(drives)
        close(activation.difference(drives, change), expected, f"{activation}: difference and two responses")
    if activation.holomorphic:
        check_holomorphic(activation.response, drives, what=f"{activation}: response")
        change = torch.randn_like(drives)
        check_holomorphic(lambda c: activation.difference(drives, c), change, what=f"{activation}: difference")


@repeatable
def check_map(map: Map, batch: int = 2) -> None:
    """``linearize`` states the value, the derivative and its transpose; ``transpose`` and ``linear`` agree with it."""
    map = copy.deepcopy(map).double()
    pre, step = (torch.randn(batch, *map.in_shape, dtype=torch.float64) for _ in range(2))
    post = torch.randn(batch, *map.out_shape, dtype=torch.float64)
    carried = map.linearize(pre)
    value, push, pull = carried[:3]
    close(value, map(pre), f"{map}: carry and forward")
    assert value.shape == post.shape, f"{map}: out_shape says {map.out_shape}, the value is {tuple(value.shape)}."
    derived = torch.func.vjp(map.forward, pre)[1](post)[0]
    close(pull(post), derived, f"{map}: the pull of carry and the derivative of forward")
    close(map.transpose(pre, post), derived, f"{map}: transpose and the derivative of forward")
    assert derived.shape == step.shape, f"{map}: transpose does not return to in_shape."
    pushed = torch.func.jvp(map.forward, (pre,), (step,))[1]
    close(push(step), pushed, f"{map}: the push of carry and the derivative of forward")
    for found, expected in zip(map.jvp(pre, step), (value, pushed), strict=True):
        close(found, expected, f"{map}: jvp and the derivative of forward")
    some = torch.tensor([*range(batch), 0])
    taken = carried.select(some)
    for name, found, whole in (
        ("value", taken.value, value),
        ("push", taken.jvp(step[some]), pushed),
        ("pull", taken.vjp(post[some]), derived),
    ):
        close(found, whole[some], f"{map}: the {name} of carry, some examples taken")
    if carried.bilinear_derivative is not None:
        parameters, known, counts = list(map.parameters()), torch.randn(batch), torch.randn(batch)
        pairs = [(pre, post), (step, post.flip(0))]
        attached = carried.bilinear_derivative(known, pairs)
        close(attached, known, f"{map}: attach and what is known")
        sums = torch.stack([sum_per_example(push(p) * q) for p, q in pairs]).sum(0)
        both = (torch.autograd.grad((counts * each).sum(), parameters) for each in (attached, sums))
        for found, expected in zip(*both, strict=True):
            close(found, expected, f"{map}: the derivative that attach gives and that of push")
    if map.linear:
        offset = value - push(pre)  # a module's bias
        close(offset, map(torch.zeros_like(pre)).expand_as(offset), f"{map}: linear, and the value off its push")
    if map.holomorphic:
        check_holomorphic(map.forward, pre, what=f"{map}: forward")
        check_holomorphic(map.transpose, pre, post, what=f"{map}: transpose")
        check_holomorphic(lambda z, d: map.linearize(z).jvp(d), pre, step, what=f"{map}: the push of carry")
        check_holomorphic(lambda z, d: map.linearize(z).vjp(d), pre, post, what=f"{map}: the pull of carry")


@repeatable
def check_coupling(coupling: Coupling, shapes: Mapping[str, tuple[int, ...]], batch: int = 3) -> None:
    """Drives are minus the gradients of potentials; holding a node and choosing examples change neither.

    ``shapes``: node -> shape of one example, for each of the coupling's nodes (which is bound to its nodes already).
    """
    coupling = copy.deepcopy(coupling).double()
    states = [torch.randn(batch, *shapes[node], dtype=torch.float64) for node in coupling.nodes]
    for node in coupling.nodes:
        derived = Coupling.drive(coupling, node, *states)
        close(coupling.drive(node, *states), derived, f"{coupling}: drive and -grad potential at {node!r}")
        one = coupling.drive(node, *(s[:1] for s in states))
        close(one, derived[:1], f"{coupling}: the drive on {node!r} of one example and of a batch")
    bound = coupling.clamp({})
    every, some = torch.arange(batch), torch.tensor([*range(batch), 0, batch - 1])
    for seen, examples in ((bound, every), (bound.select(some), some)):
        at = [s[examples] for s in states]
        for node in coupling.nodes:
            for _ in range(2):  # what is remembered must not go stale
                close(seen.drive(node, *at), coupling.drive(node, *at), f"{coupling}: given nothing, {node!r}")
                at = [torch.randn_like(s) for s in at]
            at[0].mul_(0.5)
            close(seen.drive(node, *at), coupling.drive(node, *at), f"{coupling}: after a change in place, {node!r}")
    moves = [1e-5 * torch.randn_like(s) for s in states]  # too small to make another unit a pool's winner
    whole = coupling.contrast(*(s + m for s, m in zip(states, moves, strict=True))) - coupling.contrast(*states)
    close(coupling.contrast_difference(states, moves), whole, f"{coupling}: change and two contrasts")
    done = Coupling.work(coupling, states, moves)
    close(coupling.work(states, moves), done, f"{coupling}: work and <drive, move>")
    bound_done = bound.work(states, moves)
    close(bound_done, done, f"{coupling}: given nothing, work and <drive, move>")
    if done.requires_grad:
        learning, counts = [p for p in coupling.parameters() if p.requires_grad], torch.randn(batch)
        both = (
            torch.autograd.grad((counts * each).sum(), learning, allow_unused=True, materialize_grads=True)
            for each in (bound_done, done)
        )
        for found, expected in zip(*both, strict=True):
            close(found, expected, f"{coupling}: given nothing, the derivatives of work and of <drive, move>")
    tangent, steps = coupling.tangent(*states), [torch.randn_like(s) for s in states]
    for node in coupling.nodes:
        expected = Tangent(coupling, tuple(states)).drive(node, *steps)
        close(tangent.drive(node, *steps), expected, f"{coupling}: the tangent's drive on {node!r}")
        taken = tangent.select(some).drive(node, *(s[some] for s in steps))
        close(taken, expected[some], f"{coupling}: the tangent's drive on {node!r}, some examples taken")
        if coupling.bilinear:
            at = [s + (1.0 if n == node else 0.0) for n, s in zip(coupling.nodes, states, strict=True)]
            if not any(isinstance(m, Map) and getattr(m, "pool", None) for m in coupling.modules()):
                close(coupling.drive(node, *at), coupling.drive(node, *states), f"{coupling}: bilinear, at {node!r}")
    if coupling.holomorphic:
        check_holomorphic(coupling.contrast, *states, what=f"{coupling}: contrast")
        check_holomorphic(lambda *m: coupling.contrast_difference(states, m), *steps, what=f"{coupling}: change")
        for node in coupling.nodes:
            for name, found in (("potential", coupling.potential), ("drive", coupling.drive), ("drive", bound.drive)):
                check_holomorphic(partial(found, node), *states, what=f"{coupling}: {name} of {node!r}")
            check_holomorphic(partial(tangent.drive, node), *steps, what=f"{coupling}: the tangent's drive on {node!r}")
    for i, node in enumerate(coupling.nodes if len(coupling.nodes) > 1 else ()):
        others = [s for j, s in enumerate(states) if j != i]
        try:
            held = coupling.clamp({node: states[i]})
        except ValueError:  # a term that cannot be held says so
            continue
        for other in held.nodes:
            expected = coupling.drive(other, *states)
            close(held.drive(other, *others), expected, f"{coupling}: with {node!r} held")
            taken = held.select(some).drive(other, *(s[some] for s in others))
            close(taken, expected[some], f"{coupling}: with {node!r} held, some examples taken")


@repeatable
def check_loss(
    loss: Loss,
    target: Target,
    shapes: Mapping[str, tuple[int, ...]],
    batch: int = 3,
    within: tuple[float, float] | None = None,
) -> None:
    """``force`` is minus the gradient of the loss; examples do not mix.

    ``within``: where the loss takes states from; default: anywhere.
    """
    loss = copy.deepcopy(loss).double()

    def draw(shape: tuple[int, ...]) -> Tensor:
        normal = torch.randn(batch, *shape, dtype=torch.float64)
        return normal if within is None else within[0] + (within[1] - within[0]) * normal.sigmoid()

    states = [draw(shapes[node]) for node in loss.nodes]
    assert loss(target, *states).shape == (batch,), f"{loss}: a loss is one number an example."
    others = [torch.cat([s[:1], draw(shapes[node])[1:]]) for s, node in zip(states, loss.nodes, strict=True)]
    close(loss(target, *others)[0], loss(target, *states)[0], f"{loss}: one example's loss beside two sets of others")
    for node in loss.nodes:
        derived = Loss.force(loss, node, target, *states)
        close(loss.force(node, target, *states), derived, f"{loss}: force and -grad at {node!r}")
    if loss.holomorphic:
        check_holomorphic(partial(loss, target), *states, what=f"{loss}")
        for node in loss.nodes:
            check_holomorphic(partial(loss.force, node, target), *states, what=f"{loss}: force on {node!r}")


@repeatable
def check_holomorphic(function: Callable[..., Tensor], *at: Tensor, what: str) -> None:
    """Of tensors ``at``, real and in float64: the same in complex numbers, and holomorphic in all of them together.

    By Cauchy's theorem: round a small circle beside the real axis its integral is 0, which for a function with any part
    in the conjugate it is not.
    """

    def value(*points: Tensor) -> Tensor:
        return function(*points).to(torch.complex128)  # a constant may stay real

    points = [a.to(torch.complex128) for a in at]
    close(value(*points), value(*at), f"{what}: holomorphic, and the value of real numbers")
    directions = [torch.randn_like(a) for a in at]
    centre = [p + 0.05j * torch.randn_like(a) for p, a in zip(points, at, strict=True)]
    turns = [cmath.rect(1, 2 * math.pi * n / 16) for n in range(16)]
    around = [turn * value(*(c + 0.02 * turn * d for c, d in zip(centre, directions, strict=True))) for turn in turns]
    integral = torch.stack(around).mean(0)
    close(integral, torch.zeros_like(integral), f"{what}: holomorphic, and the integral round a circle")


@repeatable
@torch.no_grad()
def check_sweep(sweep: Sweep, network: Network, batch: int = 3) -> None:
    """A sweep leaves its input alone, keeps the nodes, and comes to the rest that one node's response defines.

    For a network that settles (small weights).
    """
    landscape, state = begin(network, batch)
    before = {node: value.clone() for node, value in state.items()}
    for _ in range(500):
        new = sweep(landscape, state)
        if state is not new and set(new) != set(before):
            raise AssertionError(f"the sweep returned nodes {list(new)} for {list(before)}.")
        state = new
    start = landscape.zeros()
    sweep(landscape, start)
    for node, value in start.items():
        assert not value.any(), f"the sweep changed its input at {node!r}."
        close(state[node], landscape.relax(state, [node])[node], f"the sweep's rest and the response of {node!r}")


@repeatable
@torch.no_grad()
def check_solver(solver: Solver, network: Network, batch: int = 3) -> None:
    """Where a solver says it is at rest, every node's response is its state. For a network that settles.

    To ten times the residual, and where the status says SETTLED to ten times the distance, as it claims: both are
    numbers of units' changes, so the solver's ``norm`` must be ``max_norm``.
    """
    landscape, start = begin(network, batch)
    settled = solver(landscape, start)
    for name in ("residual", "sweeps", "status", "distance"):
        shape = tuple(getattr(settled, name).shape)
        assert shape == (batch,), f"{solver}: {name} has shape {shape}; it must be one number an example, ({batch},)."
    known = set(Status)
    assert known.issuperset(settled.status.tolist()), f"{solver}: status {settled.status.tolist()} is not of {known}."
    for name, value in (settled.memory or {}).items():
        assert len(value) == batch, f"{solver}: memory {name!r} has {len(value)} rows for {batch} examples."
    for node, value in settled.state.items():
        gap = (landscape.relax(settled.state, [node])[node] - value).abs().amax(example_dims(value))
        assert bool((gap <= 10 * settled.residual + 1e-12).all()), (
            f"{solver}: {node!r} would still move by {float(gap.max()):.1e}; the residual says "
            f"{float(settled.residual.max()):.1e}."
        )
        claimed = torch.where(settled.settled, settled.distance, torch.inf)
        assert bool((gap <= 10 * claimed + 1e-12).all()), (
            f"{solver}: {node!r} would still move by {float(gap[settled.settled].max()):.1e} where the status says "
            f"SETTLED, within {float(settled.distance[settled.settled].max()):.1e} of rest."
        )


def begin(network: Network, batch: int) -> tuple[Landscape, dict[str, Tensor]]:
    network = copy.deepcopy(network).double()
    landscape = network.landscape(torch.randn(batch, *network.nodes[network.input].shape, dtype=torch.float64))
    return landscape, landscape.zeros()


def close(found: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=lambda text: f"{what} disagree. {text}")
