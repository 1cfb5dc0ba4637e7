"""What a solution says about itself: settled is near rest, and nothing else; and what to do where it is not."""

from dataclasses import dataclass

import pytest
import torch
from test_sweeps import chain, start

import eqprop as ep
from eqprop import testing
from eqprop.energy.nodes import select
from eqprop.settling import ConjugateGradients, FromFeedforward, FromState, Leaky, Status, max_norm, relative_norm
from eqprop.settling.displacement import tangent
from eqprop.settling.solvers import joined
from eqprop.settling.starts import one_pass

FAR = ep.UntilConverged(1e-13, 20_000)


def scaled(network, factor):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(factor)
    return network


def distance(found, rest):
    """(batch,): the largest distance of any unit."""
    return torch.stack([(found.state[n] - rest.state[n]).abs().amax(1) for n in rest.state]).amax(0)


@pytest.mark.parametrize("sweep", [ep.synchronous, ep.alternating, ep.settling.forward_order, Leaky(0.1)])
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_the_estimated_distance_is_never_much_less_than_the_distance(depth, sweep):
    with torch.no_grad():
        scene, state = start(scaled(chain(depth), 0.7))
        rest = FAR(scene, state)
        for n in (depth + 2, depth + 5, depth + 8):
            found = ep.FixedSweeps(n, sweep)(scene, state)
            true = distance(found, rest)
            assert bool((found.distance > 0.3 * true).all())
    if isinstance(sweep, Leaky):  # slow, so that a last step alone would flatter
        assert bool((true > 3 * found.residual).all())
        assert bool((found.distance < 3 * true).all())


@pytest.mark.parametrize("over_relaxation", [1.0, 1.6])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_until_converged_is_as_near_rest_as_it_says(tolerance, over_relaxation):
    with torch.no_grad():
        scene, state = start(scaled(chain(4, ep.identity), 0.7))
        rest = FAR(scene, state)
        found = ep.UntilConverged(tolerance, 2000, over_relaxation=over_relaxation)(scene, state)
    assert found.settled.all()
    assert bool((distance(found, rest) <= 3 * tolerance).all())
    assert bool((found.distance <= tolerance).all())


def test_sweeps_that_run_out_are_told_with_node_distance_and_advice():
    with torch.no_grad():
        scene, state = start(chain(3))
        found = ep.UntilConverged(1e-12, 4)(scene, state)
        settled = ep.UntilConverged(1e-8, 500)(scene, state)
    assert found.status.tolist() == [Status.OUT_OF_SWEEPS] * 3
    assert found.status.dtype == torch.int8
    assert found.distance.isfinite().all()
    line = found.explain()
    worst = int(found.distance.argmax())
    node = found.select(torch.tensor([worst])).worst_node()
    for part in (
        "3 of 3 examples",
        f"example {worst}",
        "OUT_OF_SWEEPS",
        repr(node),
        f"{float(found.residual[worst]):.1e}",
        f"{float(found.distance[worst]):.1e}",
        "4 sweeps",
        "more sweeps",
    ):
        assert part in line
    assert "\n" not in line
    assert settled.explain() == ""
    assert settled.status.tolist() == [Status.SETTLED] * 3


def test_a_fixed_number_of_sweeps_has_a_tolerance_for_its_status_alone():
    with torch.no_grad():
        scene, state = start(scaled(chain(3), 0.5))
        found, strict = (ep.FixedSweeps(12, tolerance=t)(scene, state) for t in (1e-2, 1e-12))
        once = ep.FixedSweeps(1)(scene, state)
        rest = ep.FixedSweeps(300)(scene, state)
        again = ep.FixedSweeps(1)(scene, {n: torch.zeros_like(v) for n, v in state.items()})
        silent = scene.only({})
        still = ep.FixedSweeps(1)(silent, silent.zeros())
    assert found.status.tolist() == [Status.SETTLED] * 3
    assert strict.status.tolist() == [Status.OUT_OF_SWEEPS] * 3
    for node, value in found.state.items():
        assert torch.equal(strict.state[node], value)
    assert torch.equal(found.distance, strict.distance)
    for solution in (once, again):
        assert solution.status.tolist() == [Status.OUT_OF_SWEEPS] * 3
        assert solution.distance.isinf().all()
        assert "too few sweeps" in solution.explain()
    assert still.status.tolist() == [Status.SETTLED] * 3
    assert still.distance.tolist() == [0] * 3
    assert rest.status.tolist() == [Status.SETTLED] * 3  # rounding errors do not shrink, and are not growth
    assert float(rest.distance.max()) < 1e-14
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ep.InputError, match="tolerance"):
            ep.FixedSweeps(3, tolerance=bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_tolerance_near_the_precision_can_be_met(dtype, size):
    """With states of any size: the rounding errors of the last sweeps are known for what they are."""
    network = chain(3, ep.identity).to(dtype)
    scaled(network, 0.8)
    with torch.no_grad():
        for name in ("layer1_bias", "layer2_bias", "layer3_bias"):
            network.terms[name].bias.mul_(size)
        scene = network.landscape(size * torch.randn(3, 3, dtype=dtype))
        found = ep.UntilConverged(size * 4 * torch.finfo(dtype).eps, 500)(scene, scene.zeros())
    assert found.settled.all()
    assert int(found.sweeps.max()) < 200


@pytest.mark.parametrize("activation", [ep.tanh, ep.identity], ids=str)
@pytest.mark.parametrize("solver", [ep.FixedSweeps(20), ep.UntilConverged(1e-3, 3000)], ids=["fixed", "until"])
def test_weights_that_are_too_large_are_never_settled(solver, activation):
    torch.manual_seed(0)
    network = ep.chain((8,), [ep.DenseLayer(30, activation), ep.DenseLayer(30, activation)])
    scaled(network, 5)
    with torch.no_grad():
        scene = network.landscape(torch.randn(4, 8))
        if activation is ep.identity:
            found = solver(scene, scene.zeros())
            wild = found.status == Status.NON_FINITE
            assert bool((wild | (found.distance.isinf() & (found.status == Status.OUT_OF_SWEEPS))).all())
            assert "smaller weights" in found.explain()
            if isinstance(solver, ep.UntilConverged):
                assert wild.all()
                assert int(found.sweeps.max()) < 1000
        else:  # saturates: whatever counts as settled is at rest
            found = solver(scene, scene.zeros())
            moved = scene.step(found.state, list(scene.nodes))
            gap = torch.stack([(moved[n] - v).abs().amax(1) for n, v in found.state.items()]).amax(0)
            assert bool((gap[found.settled] < 2e-2).all())


def test_each_example_of_a_batch_has_a_status_of_its_own():
    """One starts at rest, one meets an infinite input, two are on their way."""
    network = chain(3)
    torch.manual_seed(1)
    x = torch.randn(4, 3, dtype=torch.float64)
    x[1] = torch.inf
    with torch.no_grad():
        scene = network.landscape(x)
        first = network.landscape(x[:1])
        rest = ep.FixedSweeps(2000)(first, first.zeros()).state
        begin = scene.zeros()
        for node, value in rest.items():
            begin[node][:1] = value
        found = ep.UntilConverged(1e-9, 4)(scene, begin)
        whole = ep.UntilConverged(1e-9, 400)(scene, begin)
    assert found.status.tolist() == [Status.SETTLED, Status.NON_FINITE, Status.OUT_OF_SWEEPS, Status.OUT_OF_SWEEPS]
    assert found.settled.tolist() == [True, False, False, False]
    assert "3 of 4 examples did not settle; the worst, example 1: NON_FINITE" in found.explain()
    assert whole.status.tolist() == [Status.SETTLED, Status.NON_FINITE, Status.SETTLED, Status.SETTLED]
    assert int(whole.sweeps[1]) <= 3
    some = found.select(torch.tensor([2, 0]))
    assert some.status.tolist() == [Status.OUT_OF_SWEEPS, Status.SETTLED]
    assert torch.equal(some.distance, found.distance[[2, 0]])
    both = joined([some, found])
    assert both.status.tolist() == [*some.status.tolist(), *found.status.tolist()]
    assert torch.equal(both.distance, torch.cat([some.distance, found.distance]))
    assert both.memory is None


def test_starts_and_passes():
    with torch.no_grad():
        scene, state = start(chain(4))
        rest = FAR(scene, state)
        for solver in (FromFeedforward(ep.FixedSweeps(2)), FromFeedforward(ep.UntilConverged(1e3, 50))):
            found = solver(scene, state)
            assert not bool((found.settled & (found.sweeps < ep.settling.crossing(scene, ep.alternating))).any())
        again = FromState(rest.state, ep.UntilConverged(1e-10, 50))(scene, state)
        assert again.settled.all()
        assert one_pass(scene).settled.all()
        assert one_pass(chain(4).landscape(torch.full((2, 3), torch.nan, dtype=torch.float64))).status.tolist() == [
            2,
            2,
        ]


# -- the deep chain --


def deep(units=32, seed=1):
    torch.manual_seed(seed)
    network = ep.chain((20,), [ep.DenseLayer(units, ep.tanh) for _ in range(40)], ep.SquaredError).double()
    scaled(network, 1.5)
    torch.manual_seed(1)
    return network, torch.randn(1, 20, dtype=torch.float64), 0.1 * torch.randn(1, units, dtype=torch.float64)


def weights(network, estimator, x, y):
    record = ep.Record()
    model = ep.Equilibrium(network, estimator)
    loss = model.loss(x, y, record=record)
    names = [name for name, _ in network.named_parameters()]
    found = dict(zip(names, torch.autograd.grad(loss, list(network.parameters())), strict=True))
    return [value for name, value in found.items() if "weight" in name], record


def cosine(found, exact):
    """Of tensors of any size; 0 where one of them is 0."""
    if not bool(found.any()) or not bool(exact.any()):
        return 0.0
    return float((found / found.norm() * exact / exact.norm()).sum())


def test_a_deep_chain_is_settled_only_where_its_gradient_is_right():
    """Forty layers, weights times 1.5, a tolerance of 1e-3: in each layer, however small its gradient is."""
    network, x, y = deep()
    exact, record = weights(network, ep.ImplicitDifferentiation(FAR, tolerance=1e-14), x, y)
    free, at_rest = ep.UntilConverged(1e-3, 2000), FromState(record.free.state, ep.FixedSweeps(1))
    for norm in (max_norm, relative_norm):
        response = ep.UntilConverged(1e-3, 2000, norm=norm)
        for estimator in (
            ep.InfinitesimalNudge(free, response, 0.0),
            ep.EquilibriumPropagation(ep.symmetric(0.1), at_rest, response),
            ep.EquilibriumPropagation(ep.symmetric(0.1), at_rest, response, form=ep.learning.forms.states),
        ):
            found, record = weights(network, estimator, x, y)
            assert record.free.settled.all() or estimator.free is at_rest
            assert record.nudged.settled.all()
            assert min(cosine(g, e) for g, e in zip(found, exact, strict=True)) > 0.99
    for n in (12, 20, 60):
        found, record = weights(network, ep.InfinitesimalNudge(at_rest, ep.FixedSweeps(n), 0.0), x, y)
        assert min(cosine(g, e) for g, e in zip(found, exact, strict=True)) < 0.99
        assert record.nudged.status.tolist() == [Status.OUT_OF_SWEEPS]


def test_a_deep_chain_is_not_settled_after_fewer_sweeps_than_the_force_needs():
    network, x, y = deep()
    few = ep.InfinitesimalNudge(ep.FixedSweeps(12), ep.FixedSweeps(12), 0.0)
    found, record = weights(network, few, x, y)
    assert not found[0].any()  # nothing has arrived
    for solution in (record.free, record.nudged):
        assert solution.status.tolist() == [Status.OUT_OF_SWEEPS]
        assert "cross the network" in solution.explain()
    free = ep.UntilConverged(1e-3, 2000)
    _, record = weights(network, ep.InfinitesimalNudge(free, ConjugateGradients(12, 1e-2), 0.0), x, y)
    assert record.nudged.status.tolist() == [Status.OUT_OF_SWEEPS]
    _, record = weights(network, ep.InfinitesimalNudge(free, ConjugateGradients(100, 1e-2), 0.0), x, y)
    assert record.nudged.status.tolist() == [Status.SETTLED]
    assert int(record.nudged.sweeps) >= 20


# -- conjugate gradients --


def test_conjugate_gradients_tell_what_happened_to_each_example():
    network = ep.chain((3,), [ep.DenseLayer(3, ep.tanh), ep.DenseLayer(3, ep.tanh)], ep.SquaredError)
    with torch.no_grad():
        network.terms["layer1_layer2"].map.weight.copy_(3 * torch.eye(3))
        network.terms["input_layer1"].map.weight.copy_(5 * torch.eye(3))
        for name in ("layer1_bias", "layer2_bias"):
            network.terms[name].bias.zero_()
        scene = network.landscape(torch.tensor([[0.0] * 3, [2.0] * 3, [2.0] * 3, [2.0] * 3, [2.0] * 3]))
        state = ep.FixedSweeps(200)(scene, scene.zeros()).state  # zero, a saddle, and saturated rests
        force = torch.tensor([1.0, 1.0, torch.nan, torch.inf, 0.0]).unsqueeze(1).expand(5, 3)
        for node in ("layer1", "layer2"):
            moved = tangent(scene, state, {node: force})
            found = ConjugateGradients(50)(moved, moved.zeros())
            kinds = [Status.UNSTABLE, Status.SETTLED, Status.NON_FINITE, Status.NON_FINITE, Status.SETTLED]
            assert found.status.tolist() == kinds
            assert found.unstable.tolist() == [True, False, False, False, False]
            assert found.distance.isfinite().tolist() == [True, True, False, False, True]
            for value in found.state.values():
                assert value[2:4].isnan().all()
                assert value[[0, 1, 4]].isfinite().all()
                assert not value[4].any()
            assert "NON_FINITE" in found.explain()
            assert "smaller tolerance" in found.select(torch.tensor([0, 1])).explain()


def test_conjugate_gradients_that_run_out():
    with torch.no_grad():
        scene, state = start(chain(4))
        rest = FAR(scene, state).state
        moved = tangent(scene, rest, {"layer4": torch.ones_like(rest["layer4"])})
        short, long = (ConjugateGradients(n, 1e-12)(moved, moved.zeros()) for n in (3, 100))
    assert short.status.tolist() == [Status.OUT_OF_SWEEPS] * 3
    assert long.status.tolist() == [Status.SETTLED] * 3
    assert torch.equal(long.distance, long.residual)


# -- memory --


@dataclass(frozen=True)
class HeavyBall(ep.Solver):
    """Goes on a part of the way it went last; its velocity is what it wants back."""

    n: int
    momentum: float = 0.3

    def __call__(self, landscape, start, memory=None):
        velocity = memory or {node: torch.zeros_like(value) for node, value in start.items()}
        states = [start]
        for _ in range(self.n):
            target = ep.alternating(landscape, states[-1])
            new = {node: target[node] + self.momentum * velocity[node] for node in target}
            velocity = {node: new[node] - states[-1][node] for node in new}
            states = [*states[-2:], new]
        return ep.Solution.from_states(states, self.n, 1e-2, start, memory=velocity)


def test_a_solver_goes_on_with_its_memory():
    with torch.no_grad():
        scene, state = start(chain(3))
        whole, first = HeavyBall(14)(scene, state), HeavyBall(7)(scene, state)
        second = HeavyBall(7)(scene, first.state, first.memory)
        forgetful = HeavyBall(7)(scene, first.state)
        some = torch.tensor([2, 0])
        part = first.select(some)
        of_some = HeavyBall(7)(scene.select(some), part.state, part.memory)
        stacked = joined([first.select(torch.tensor([i])) for i in range(3)])
    for node, value in whole.state.items():
        assert torch.equal(second.state[node], value)
        assert torch.equal(second.memory[node], whole.memory[node])
        assert not torch.equal(forgetful.state[node], value)
        torch.testing.assert_close(of_some.state[node], value[some], rtol=0, atol=1e-14)
        assert torch.equal(stacked.memory[node], first.memory[node])
    assert joined([first, first._replace(memory=None)]).memory is None
    testing.check_solver(HeavyBall(60), scaled(chain(3), 0.5))


def test_starts_hand_memory_through_and_others_ignore_it():
    with torch.no_grad():
        scene, state = start(chain(3))
        first = HeavyBall(7)(scene, state)
        on = FromState(first.state, HeavyBall(7))(scene, scene.zeros(), first.memory)
        whole = HeavyBall(14)(scene, state)
        swept = FromFeedforward(ep.FixedSweeps(3))(scene, state, first.memory)
        up = FromFeedforward(HeavyBall(3))(scene, state, first.memory)
        plain = FromFeedforward(HeavyBall(3))(scene, state)
    for node, value in whole.state.items():
        assert torch.equal(on.state[node], value)
        assert not torch.equal(up.state[node], plain.state[node])
    assert swept.memory is None
    assert select(first.memory, torch.tensor([1]))["layer1"].shape[0] == 1
