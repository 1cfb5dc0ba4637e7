"""The conformance suite: checks for units, maps, couplings, losses, sweeps and solvers, of the package and of users.

Modules and networks are checked in float64 on a copy: the arguments are not changed. Each check raises
``AssertionError``. Each seeds its own random generator, so its result is reproducible.
"""

from __future__ import annotations

import cmath
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import ParamSpec

import torch
from torch import Tensor, nn

from eqprop.energy.landscape import Landscape
from eqprop.energy.losses import Loss, Nudge, SquaredError, Target
from eqprop.energy.maps import Map
from eqprop.energy.network import Network
from eqprop.energy.shapes import example_dims, sum_per_example
from eqprop.energy.substrate import Substrate
from eqprop.energy.terms import Tangent, Term
from eqprop.energy.units import Unit, tanh
from eqprop.errors import InputError
from eqprop.models.builders import ConvLayer, DenseLayer, chain
from eqprop.settling import displacement
from eqprop.settling.solvers import Solver, Status
from eqprop.settling.sweeps import Sweep

Arguments = ParamSpec("Arguments")
"""The parameters of a check."""


def repeatable(check: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """The ``check`` with random numbers of seed 0; torch's generator is restored afterwards."""

    @wraps(check)
    def seeded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            check(*args, **kwargs)

    return seeded


@repeatable
def check_unit(unit: Unit, low: float = -3.0, high: float = 3.0, shape: tuple[int, ...] = (5,)) -> None:
    """``response(a)`` minimises ``potential(s) - a s`` over the responses there are, and rises with a.

    One that falls somewhere minimises no potential, and is held to the rest if ``potential`` says so by an InputError.
    A parabolic unit is held to all of it with a stiffness too. A unit without a response must come down in ``step``.

    Args:
        unit: the unit.
        low, high: the range of the drives; without a response, of the states.
        shape: of a node that the unit takes.
    """
    if not unit.has_response:
        _check_descent(unit, low, high, shape)
        return
    stiff = [0.7] if unit.parabolic else []
    if unit.elementwise:
        drives = torch.linspace(low, high, 601, dtype=torch.float64).view(-1, *(1 for _ in shape)).repeat(1, *shape)
        order = torch.rand_like(drives).argsort(0)  # each unit's drives in an order of their own
        one, together = unit.response(drives.gather(0, order), *stiff), unit.response(drives, *stiff).gather(0, order)
    else:
        drives = low + (high - low) * torch.rand(200, *shape, dtype=torch.float64)
        one = torch.cat([unit.response(each, *stiff) for each in drives.split(1)])
        together = unit.response(drives, *stiff)
    close(together, one, f"{unit}: `elementwise` is {unit.elementwise}; the responses together and one by one")
    if not unit.elementwise:
        _check_symmetric(unit, drives)
    for stiffness in ([], stiff) if unit.parabolic else ([],):
        try:
            states = unit.response(drives, *stiffness)
        except InputError:  # one that has no energy of its own rests by its terms' stiffness alone
            assert unit.parabolic, f"{unit}: `response` refuses what it must answer."
            continue
        _check_minimum(unit, drives, states, *stiffness)
        if unit.has_slope_at and not stiffness:
            expected = displacement.slope(unit.response, drives)
            close(unit.slope_at(states), expected, f"{unit}: slope_at and the derivative of the response")
        _check_difference(unit, drives, *stiffness)
    if unit.holomorphic:
        check_holomorphic(unit.response, drives, what=f"{unit}: response")
        change = torch.randn_like(drives)
        check_holomorphic(lambda c: unit.difference(drives, c), change, what=f"{unit}: difference")


def _check_minimum(unit: Unit, drives: Tensor, states: Tensor, stiffness: float = 0.0) -> None:
    """Each of ``states``, (n, ...), has the least energy of all of them under its own drive, and they rise with it."""
    assert unit.low <= float(states.min()), f"{unit}: a response is below `low`, {unit.low}."
    assert float(states.max()) <= unit.high, f"{unit}: a response is above `high`, {unit.high}."
    work = drives.flatten(1) @ states.flatten(1).T  # of each drive on each state
    own = work.diagonal()
    rises = bool((own[:, None] + own[None, :] - work - work.T >= -1e-12).all())
    try:
        energy = sum_per_example(unit.potential(states)) + 0.5 * stiffness * sum_per_example(states.square())
    except InputError:
        assert not rises, f"{unit}: the response rises everywhere, so it has a potential."
        return
    assert rises, f"{unit}: the response falls somewhere."
    cost = energy[None, :] - work
    excess = cost.diagonal() - cost.amin(1)
    worst = int(excess.argmax())
    assert float(excess[worst]) < 1e-9, (
        f"{unit}: at drive {drives[worst].tolist()} the response {states[worst].tolist()} is not the minimum."
    )


def _check_difference(unit: Unit, drives: Tensor, stiffness: float | None = None) -> None:
    """``difference`` is that of two responses, the terms' stiffness felt by the difference alone.

    A unit that rests by stiffness alone may refuse it by an InputError.
    """
    stiff = [] if stiffness is None else [stiffness]
    for size in (1.0, 1e-3, 0.0):
        change = size * torch.randn_like(drives)
        try:
            found, rest = unit.difference(drives, change, *stiff), unit.response(drives)
        except InputError:
            assert unit.parabolic, f"{unit}: `difference` refuses what it must answer."
            return
        expected = unit.response(drives + change + sum(k * rest for k in stiff), *stiff) - rest
        close(found, expected, f"{unit}: difference and two responses")


def _check_symmetric(unit: Unit, drives: Tensor) -> None:
    """A response that is the gradient of a function has a symmetric derivative: else the network has no energy."""
    one, other = torch.randn_like(drives), torch.randn_like(drives)
    there, back = (sum_per_example(a * unit.compliance(drives, b)) for a, b in ((one, other), (other, one)))
    close(there, back, f"{unit}: the derivative of the response and its transpose")


def _check_descent(unit: Unit, low: float, high: float, shape: tuple[int, ...]) -> None:
    """A unit without a response: ``force`` is -grad ``potential``, and no ``step`` raises the energy."""
    low, high = max(low, unit.low), min(high, unit.high)
    state = low + (high - low) * torch.rand(200, *shape, dtype=torch.float64)
    drive = torch.randn_like(state)
    close(unit.force(state), Unit.force(unit, state), f"{unit}: force and -grad potential")
    close(unit.force(state[:1]), unit.force(state)[:1], f"{unit}: the force on one example and on a batch")
    after = unit.step(state, drive)
    assert bool(((after >= unit.low) & (after <= unit.high)).all()), f"{unit}: a step leaves the range."
    gained, work = unit.potential(after) - unit.potential(state), drive * (after - state)
    rise = sum_per_example(gained) - sum_per_example(work)
    assert bool((rise <= 1e-12).all()), (
        f"{unit}: a step raises the energy by {float(rise.max()):.1e}: its `rate` {unit.rate} is too long."
    )


@repeatable
def check_map(map: Map, batch: int = 2) -> None:
    """Checks value, derivative and transposed derivative of ``map.linearize``, and ``transpose`` and ``linear``.

    ``batch``: number of examples.
    """
    map = copy.deepcopy(map).double()
    pre, step = (torch.randn(batch, *map.in_shape, dtype=torch.float64) for _ in range(2))
    post = torch.randn(batch, *map.out_shape, dtype=torch.float64)
    carried = map.linearize(pre)
    value, push, pull = carried[:3]
    close(value, map(pre), f"{map}: linearize and forward")
    assert value.shape == post.shape, f"{map}: out_shape says {map.out_shape}, the value is {tuple(value.shape)}."
    derived = torch.func.vjp(map.forward, pre)[1](post)[0]
    close(pull(post), derived, f"{map}: the vjp and the transposed derivative of forward")
    close(map.transpose(pre, post), derived, f"{map}: transpose and the derivative of forward")
    assert derived.shape == step.shape, f"{map}: transpose does not return to in_shape."
    pushed = torch.func.jvp(map.forward, (pre,), (step,))[1]
    close(push(step), pushed, f"{map}: the jvp and the derivative of forward")
    some = torch.tensor([*range(batch), 0])
    taken = carried.select(some)
    for name, found, whole in (
        ("value", taken.value, value),
        ("jvp", taken.jvp(step[some]), pushed),
        ("vjp", taken.vjp(post[some]), derived),
    ):
        close(found, whole[some], f"{map}: the {name} of selected examples")
    if carried.bilinear_derivative is not None:
        parameters, counts = list(map.parameters()), torch.randn(batch)
        attached = carried.bilinear_derivative(step, post)
        close(attached, 0 * attached, f"{map}: bilinear_derivative and 0")
        sums = sum_per_example(push(step) * post)
        both = (torch.autograd.grad((counts * each).sum(), parameters) for each in (attached, sums))
        for found, expected in zip(*both, strict=True):
            close(found, expected, f"{map}: bilinear_derivative and the derivative of the jvp")
    if map.linear:
        offset = value - push(pre)  # a module's bias
        close(offset, map(torch.zeros_like(pre)).expand_as(offset), f"{map}: linear, and the value minus the jvp")
    if map.holomorphic:
        check_holomorphic(map.forward, pre, what=f"{map}: forward")
        check_holomorphic(map.transpose, pre, post, what=f"{map}: transpose")
        check_holomorphic(lambda z, d: map.linearize(z).jvp(d), pre, step, what=f"{map}: the jvp")
        check_holomorphic(lambda z, d: map.linearize(z).vjp(d), pre, post, what=f"{map}: the vjp")


@repeatable
def check_coupling(coupling: Term, shapes: Mapping[str, tuple[int, ...]], batch: int = 3) -> None:
    """Checks that drives are minus the gradients of potentials, also with a node clamped and for selected examples.

    Args:
        coupling: a term; a coupling must be bound to its nodes.
        shapes: node -> shape of one example, for each of the term's nodes.
        batch: number of examples.
    """
    coupling = copy.deepcopy(coupling)
    if isinstance(coupling, nn.Module):
        coupling = coupling.double()
    states = [torch.randn(batch, *shapes[node], dtype=torch.float64) for node in coupling.nodes]
    for node in coupling.nodes:
        derived = Term.drive(coupling, node, *states)
        close(coupling.drive(node, *states), derived, f"{coupling}: drive and -grad potential at {node!r}")
        one = coupling.drive(node, *(s[:1] for s in states))
        close(one, derived[:1], f"{coupling}: the drive on {node!r} of one example and of a batch")
    last = coupling.nodes[-1]
    for node in coupling.nodes[:-1] if coupling.reciprocal else ():
        here, there = (coupling.gain(a) * coupling.potential(b, *states) for a, b in ((last, node), (node, last)))
        close(here, there, f"{coupling}: reciprocal, and the potentials of {node!r} and {last!r}")
    bound = coupling.clamp({})
    every, some = torch.arange(batch), torch.tensor([*range(batch), 0, batch - 1])
    for seen, examples in ((bound, every), (bound.select(some), some)):
        at = [s[examples] for s in states]
        for node in coupling.nodes:
            for _ in range(2):  # a cached value must not be used for another state
                close(seen.drive(node, *at), coupling.drive(node, *at), f"{coupling}: in a landscape, {node!r}")
                at = [torch.randn_like(s) for s in at]
            at[0].mul_(0.5)
            close(seen.drive(node, *at), coupling.drive(node, *at), f"{coupling}: after a change in place, {node!r}")
    moves = [1e-5 * torch.randn_like(s) for s in states]  # too small to change a pool's winner
    whole = coupling.contrast(*(s + m for s, m in zip(states, moves, strict=True))) - coupling.contrast(*states)
    close(coupling.contrast_difference(states, moves), whole, f"{coupling}: contrast_difference and two contrasts")
    done = Term.drive_dot(coupling, states, moves)
    close(coupling.drive_dot(states, moves), done, f"{coupling}: drive_dot and <drive, displacement>")
    bound_done = bound.drive_dot(states, moves)
    close(bound_done, done, f"{coupling}: in a landscape, drive_dot and <drive, displacement>")
    if done.requires_grad:
        assert isinstance(coupling, nn.Module)
        learning, counts = [p for p in coupling.parameters() if p.requires_grad], torch.randn(batch)
        factors = [0.5 + i for i in range(len(moves))]
        derivative = bound.drive_derivative(states, moves, factors)
        close(derivative, 0 * derivative, f"{coupling}: in a landscape, drive_derivative and 0")
        scaled = Term.drive_dot(coupling, states, [by * move for by, move in zip(factors, moves, strict=True)])
        for name, own, right in (("drive_dot", bound_done, done), ("drive_derivative", derivative, scaled)):
            both = (
                torch.autograd.grad((counts * each).sum(), learning, allow_unused=True, materialize_grads=True)
                for each in (own, right)
            )
            for found, expected in zip(*both, strict=True):
                close(found, expected, f"{coupling}: in a landscape, {name} and <drive, displacement>, derivatives")
    tangent, steps = coupling.tangent(*states), [torch.randn_like(s) for s in states]
    for node in coupling.nodes:
        expected = Tangent(coupling, tuple(states)).drive(node, *steps)
        close(tangent.drive(node, *steps), expected, f"{coupling}: the tangent's drive on {node!r}")
        taken = tangent.select(some).drive(node, *(s[some] for s in steps))
        close(taken, expected[some], f"{coupling}: the tangent's drive on {node!r}, selected examples")
        if coupling.bilinear:
            at = [s + (1.0 if n == node else 0.0) for n, s in zip(coupling.nodes, states, strict=True)]
            modules = coupling.modules() if isinstance(coupling, nn.Module) else ()
            if not any(isinstance(m, Map) and getattr(m, "pool", None) for m in modules):
                close(coupling.drive(node, *at), coupling.drive(node, *states), f"{coupling}: bilinear, at {node!r}")
    _check_transposed(coupling, tangent, steps)
    _check_stiffness(coupling, states)
    if coupling.holomorphic:
        check_holomorphic(coupling.contrast, *states, what=f"{coupling}: contrast")
        check_holomorphic(lambda *m: coupling.contrast_difference(states, m), *steps, what=f"{coupling}: difference")
        for node in coupling.nodes:
            for name, found in (("potential", coupling.potential), ("drive", coupling.drive), ("drive", bound.drive)):
                check_holomorphic(partial(found, node), *states, what=f"{coupling}: {name} of {node!r}")
            check_holomorphic(partial(tangent.drive, node), *steps, what=f"{coupling}: the tangent's drive on {node!r}")
    for i, node in enumerate(coupling.nodes if len(coupling.nodes) > 1 else ()):
        others = [s for j, s in enumerate(states) if j != i]
        try:
            held = coupling.clamp({node: states[i]})
        except ValueError:  # a term whose nodes cannot be clamped
            continue
        for other in held.nodes:
            expected = coupling.drive(other, *states)
            close(held.drive(other, *others), expected, f"{coupling}: with {node!r} clamped")
            taken = held.select(some).drive(other, *(s[some] for s in others))
            close(taken, expected[some], f"{coupling}: with {node!r} clamped, selected examples")


def _check_transposed(coupling: Term, tangent: Term, steps: Sequence[Tensor]) -> None:
    """<A d, v> = <d, A^T v>, where a coupling that says it is symmetric is its own transpose."""
    others, back = [torch.randn_like(step) for step in steps], tangent.transposed()
    there = sum(sum_per_example(tangent.drive(n, *steps) * v) for n, v in zip(coupling.nodes, others, strict=True))
    here = sum(sum_per_example(back.drive(n, *others) * d) for n, d in zip(coupling.nodes, steps, strict=True))
    close(here, there, f"{coupling}: `symmetric` is {coupling.symmetric}; the tangent and its transpose")  # type: ignore[arg-type]


def _check_stiffness(coupling: Term, states: Sequence[Tensor]) -> None:
    """The drive on a unit falls by ``stiffness`` for each unit of its own state, wherever that stands."""
    bound = coupling.clamp({})
    for i, node in enumerate(coupling.nodes):
        found = coupling.stiffness(node, *states)
        assert coupling.quadratic or found is None, f"{coupling}: it has a stiffness: state `quadratic = True`."
        if found is None:
            continue
        assert bool((found >= 0).all()), f"{coupling}: the stiffness of {node!r} is negative somewhere."
        whole = found.expand_as(states[i])
        seen = bound.stiffness(node, *states)
        close(whole if seen is None else seen.expand_as(states[i]), whole, f"{coupling}: given nothing, its stiffness")
        for unit in range(min(3, states[i][0].numel())):
            move = torch.zeros_like(states[i])
            move.flatten(1)[:, unit] = 1.0
            moved = [state + move if j == i else state for j, state in enumerate(states)]
            fall = (coupling.drive(node, *states) - coupling.drive(node, *moved)) * move
            close(fall, whole * move, f"{coupling}: how the drive on a unit of {node!r} falls, and its stiffness")
            after = coupling.stiffness(node, *moved)
            assert after is not None
            close(after.expand_as(whole), whole, f"{coupling}: the stiffness of {node!r} at two states of its own")


@repeatable
def check_loss(
    loss: Loss,
    target: Target,
    shapes: Mapping[str, tuple[int, ...]],
    batch: int = 3,
    within: tuple[float, float] | None = None,
) -> None:
    """Checks that ``force`` is minus the gradient of the loss, and that examples do not mix.

    Args:
        loss: the loss.
        target: for ``batch`` examples.
        shapes: node -> shape of one example, for each of the loss's nodes.
        batch: number of examples.
        within: the range of states; default: no bounds.
    """
    loss = copy.deepcopy(loss).double()

    def draw(shape: tuple[int, ...]) -> Tensor:
        normal = torch.randn(batch, *shape, dtype=torch.float64)
        return normal if within is None else within[0] + (within[1] - within[0]) * normal.sigmoid()

    states = [draw(shapes[node]) for node in loss.nodes]
    assert loss(target, *states).shape == (batch,), f"{loss}: a loss must be one number for each example."
    others = [torch.cat([s[:1], draw(shapes[node])[1:]]) for s, node in zip(states, loss.nodes, strict=True)]
    close(loss(target, *others)[0], loss(target, *states)[0], f"{loss}: one example's loss in two different batches")
    for node in loss.nodes:
        derived = Loss.force(loss, node, target, *states)
        close(loss.force(node, target, *states), derived, f"{loss}: force and -grad at {node!r}")
    if loss.holomorphic:
        check_holomorphic(partial(loss, target), *states, what=f"{loss}")
        for node in loss.nodes:
            check_holomorphic(partial(loss.force, node, target), *states, what=f"{loss}: force on {node!r}")


@repeatable
def check_holomorphic(function: Callable[..., Tensor], *at: Tensor, what: str) -> None:
    """Checks that ``function`` has the same values for complex numbers, and is holomorphic in all of them together.

    By Cauchy's theorem its integral round a small circle near the real axis is 0; it is not if the function depends on
    the conjugate.

    Args:
        function: of as many tensors as ``at``.
        at: real tensors in float64.
        what: names the function in errors.
    """

    def value(*points: Tensor) -> Tensor:
        return function(*points).to(torch.complex128)  # a constant may stay real

    points = [a.to(torch.complex128) for a in at]
    close(value(*points), value(*at), f"{what}: holomorphic, and the value for real numbers")
    directions = [torch.randn_like(a) for a in at]
    centre = [p + 0.05j * torch.randn_like(a) for p, a in zip(points, at, strict=True)]
    turns = [cmath.rect(1, 2 * math.pi * n / 16) for n in range(16)]
    around = [turn * value(*(c + 0.02 * turn * d for c, d in zip(centre, directions, strict=True))) for turn in turns]
    integral = torch.stack(around).mean(0)
    close(integral, torch.zeros_like(integral), f"{what}: holomorphic, and the integral round a circle")


@repeatable
@torch.no_grad()
def check_sweep(sweep: Sweep, network: Network, batch: int = 3) -> None:
    """Checks that ``sweep`` does not change its input, returns all nodes, and settles where each node's response does.

    Args:
        sweep: the sweep.
        network: one that settles (small weights).
        batch: number of examples.
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
        close(state[node], landscape.step(state, [node])[node], f"the sweep's equilibrium and the response of {node!r}")


@repeatable
@torch.no_grad()
def check_solver(solver: Solver, network: Network, batch: int = 3) -> None:
    """Checks that the states of a ``Solution`` are as near to the nodes' responses as its residual and distance say.

    Within ten times the residual and, for examples with status SETTLED, ten times the distance. Both are changes of
    units, so the solver's ``norm`` must be ``max_norm``.

    Args:
        solver: the solver.
        network: one that settles (small weights).
        batch: number of examples.
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
        gap = (landscape.step(settled.state, [node])[node] - value).abs().amax(example_dims(value))
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
    """A landscape of a copy of ``network`` in float64 with ``batch`` random examples, and its state at zero."""
    network = copy.deepcopy(network).double()
    data = {name: torch.randn(batch, *network.nodes[name].shape, dtype=torch.float64) for name in network.clamped}
    landscape = network.landscape(data or torch.zeros(batch, 0, dtype=torch.float64))
    return landscape, landscape.zeros()


@repeatable
def check_substrate(substrate: Substrate, batch: int = 3) -> None:
    """What the gates return fits; one reading of the weights is always the same; what learns is the parameter itself.

    On a small network of a convolution, a dense map and biases, tanh units and a squared error. That a substrate of
    strength 0 changes nothing is for your own test.

    Args:
        substrate: the substrate.
        batch: number of examples.
    """
    layers = [ConvLayer(2, pool=None, activation=tanh), DenseLayer(4, tanh)]
    network = chain((1, 4, 4), layers, SquaredError).double()
    shapes = {name: node.shape for name, node in network.nodes.items()}
    for name, coupling in network.terms.items():
        before = {key: parameter.clone() for key, parameter in coupling.named_parameters()}
        readings = [dict(substrate.mounted(name, coupling, k).named_parameters()) for k in (0, 0, 1)]
        for key, parameter in coupling.named_parameters():
            what = f"{substrate}: {key} of {name!r}"
            assert torch.equal(parameter, before[key]), f"{what} is changed in place: return another coupling."
            first, again, later = (reading[key] for reading in readings)
            assert first.shape == parameter.shape, f"{what} is read in shape {tuple(first.shape)}."
            assert torch.equal(first, again), f"{what}: reading 0 is not the same twice."
            same = substrate.per_phase or torch.equal(first, later)
            assert same, f"{what}: readings 0 and 1 differ: state `per_phase = True`."
            weight = torch.randn_like(parameter)
            assert first.requires_grad, f"{what} is read without a graph to the parameter: use `read_weights`."
            (found,) = torch.autograd.grad((first * weight).sum(), parameter, materialize_grads=True)
            close(found, weight, f"{what}: the gradient of what is read, which must go straight through, and of itself")
        with torch.no_grad():
            check_coupling(substrate.mounted(name, coupling, 0), shapes, batch)
        ways = [dict(substrate.as_made().mounted(name, coupling, k).named_parameters()) for k in (0, 1)]
        for key, first in ways[0].items():
            same = torch.equal(first, ways[1][key])
            assert same, f"{substrate}: {key} of {name!r}, on the machine `as_made`, differs between readings 0 and 1."
    state = {name: torch.rand(batch, *node.shape, dtype=torch.float64) for name, node in network.free.items()}
    for name, node in network.free.items():
        made = substrate.unit(name, node)
        assert made.shape == node.shape, f"{substrate}: `unit` changes the shape of {name!r}."
        assert made.unit is not None, f"{substrate}: `unit` takes the unit of {name!r} away."
        check_unit(made.unit, shape=node.shape)
        aimed = substrate.aimed(name, state[name])
        assert aimed.shape == state[name].shape, f"{substrate}: `aimed` changes the shape of {name!r}."
    for reading in (0, 1, -1):
        measured = {name: (*v.shape, v.dtype) for name, v in substrate.measured(state, reading).items()}
        assert measured == {n: (*v.shape, v.dtype) for n, v in state.items()}, (
            f"{substrate}: `measured` gives {measured}."
        )
    scale = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64).repeat(batch)[:batch]
    nudge = substrate.injected(Nudge(SquaredError("layer2", (4,)), torch.zeros(batch, dtype=torch.int64), scale))
    assert set(nudge.nodes) <= set(network.free), (
        f"{substrate}: `injected` names {nudge.nodes}, not nodes of the nudge."
    )
    for name in nudge.nodes:
        states = [state[n] for n in nudge.nodes]
        close(
            nudge.drive(name, *states), Term.drive(nudge, name, *states), f"{substrate}: drive and -grad of the nudge"
        )


def close(found: Tensor, expected: Tensor, what: str) -> None:
    """Raises AssertionError, with ``what``, unless ``found`` and ``expected`` agree to 1e-9."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=lambda text: f"{what} disagree. {text}")
