"""Coming to rest: whatever the order and the solver, at the same equilibrium, with an honest residual."""

import gc

import pytest
import torch

import eqprop as ep
from eqprop import testing

SWEEPS = [ep.synchronous, ep.alternating, ep.settling.forward_order, ep.settling.backward_order]


def network(activation=ep.tanh, scale=0.5, seed=0):
    torch.manual_seed(seed)
    layers = [ep.ConvLayer(3, pool=ep.AveragePool(2), activation=activation), ep.DenseLayer(6, activation)]
    net = ep.chain((2, 6, 6), [*layers, ep.DenseLayer(4, activation)], ep.SquaredError).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    return net


def landscape(net, batch=4):
    torch.manual_seed(1)
    return net.landscape(torch.randn(batch, 2, 6, 6, dtype=torch.float64))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_sweeps_come_to_rest(sweep):
    testing.check_sweep(sweep, network())


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.parametrize(
    "solver", [ep.FixedSweeps(3), ep.FixedSweeps(60), ep.UntilConverged(1e-6, 500)], ids=["3", "60", "converged"]
)
def test_solvers_are_honest(solver, sweep):
    testing.check_solver(type(solver)(**{**vars(solver), "sweep": sweep}), network())


def test_rest_is_a_stationary_point_of_the_energy():
    with torch.no_grad():
        scene = landscape(network())
        state = ep.FixedSweeps(300)(scene, scene.zeros()).state
    leaves = {node: value.clone().requires_grad_() for node, value in state.items()}
    slope = torch.autograd.grad(scene.energy(leaves).sum(), list(leaves.values()))
    assert max(float(g.abs().max()) for g in slope) < 1e-12


def test_all_orders_meet_and_an_alternating_sweep_does_the_work_of_two():
    with torch.no_grad():
        scene = landscape(network())
        ends = [ep.FixedSweeps(300, sweep)(scene, scene.zeros()).state for sweep in SWEEPS]
    for end in ends[1:]:
        for node, value in end.items():
            torch.testing.assert_close(value, ends[0][node], rtol=0, atol=1e-12)
    with torch.no_grad():
        gaps = [
            max(
                float((ep.FixedSweeps(n, sweep)(scene, scene.zeros()).state[k] - ends[0][k]).abs().max())
                for k in ends[0]
            )
            for n, sweep in ((10, ep.synchronous), (6, ep.alternating))
        ]
    assert gaps[1] <= gaps[0]


def test_a_linear_network_settles_to_the_solution_of_its_linear_system():
    torch.manual_seed(0)
    net = ep.chain((3,), [ep.DenseLayer(4, ep.identity), ep.DenseLayer(2, ep.identity)]).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    parameters = {name: p.detach() * 0.5 for name, p in net.named_parameters()}
    net.load_state_dict(parameters)
    w1, w2 = parameters["couplings.input_layer1.map.weight"], parameters["couplings.layer1_layer2.map.weight"]
    b1, b2 = parameters["couplings.layer1_bias.bias"], parameters["couplings.layer2_bias.bias"]
    system = torch.eye(6, dtype=torch.float64)
    system[:4, 4:], system[4:, :4] = -w2.T, -w2
    expected = torch.linalg.solve(system, torch.cat([x @ w1.T + b1, b2.expand(5, 2)], 1).T).T
    with torch.no_grad():
        scene = net.landscape(x)
        state = ep.FixedSweeps(300)(scene, scene.zeros()).state
    torch.testing.assert_close(torch.cat([state["layer1"], state["layer2"]], 1), expected)


def test_energy_never_rises_in_alternating_sweeps():
    """Each half-sweep minimises over its nodes exactly: clipped units, terms linear in every node."""
    with torch.no_grad():
        scene = landscape(network(ep.energy.half_hard_sigmoid, scale=3.0))
        state = scene.zeros()
        energies = []
        for _ in range(30):
            state = ep.alternating(scene, state)
            energies.append(scene.energy(state))
    assert bool((torch.stack(energies).diff(dim=0) <= 1e-12).all())
    assert float((energies[0] - energies[-1]).min()) > 0


def test_until_rest_does_not_depend_on_the_rest_of_the_batch():
    net, solver = network(scale=1.2), ep.UntilConverged(1e-7, 400)
    torch.manual_seed(3)
    x = torch.randn(6, 2, 6, 6, dtype=torch.float64) * torch.tensor([0.01, 0.1, 1, 3, 0.3, 2.0]).view(-1, 1, 1, 1)
    with torch.no_grad():
        scene = net.landscape(x)
        together = solver(scene, scene.zeros())
        assert len(set(together.sweeps.tolist())) > 1, "all examples took as long: nothing was tested"
        for i in range(len(x)):
            alone_scene = net.landscape(x[i : i + 1])
            alone = solver(alone_scene, alone_scene.zeros())
            assert int(alone.sweeps[0]) == int(together.sweeps[i])
            for node, value in alone.state.items():
                torch.testing.assert_close(value[0], together.state[node][i], rtol=0, atol=1e-13)
    assert bool((together.residual <= 1e-7).all())


def test_a_state_that_is_not_finite_is_seen_and_its_node_named():
    net = network()
    with torch.no_grad():
        net.terms["layer2_bias"].bias[0] = torch.nan
        scene = landscape(net)
        settled = ep.UntilConverged(1e-6, 3, ep.settling.forward_order)(scene, scene.zeros())
    assert not settled.residual.isfinite().any()
    assert settled.worst_node() == "layer2" or not settled.residuals[settled.worst_node()].isfinite().all()
    assert set(settled.status.tolist()) == {ep.settling.Status.NON_FINITE}


def test_no_graph_and_nothing_that_grows():
    """Parameters want gradients, and grad mode is on: settling still records nothing and keeps nothing."""
    net = network()
    settle = ep.FixedSweeps(5)
    model = ep.Equilibrium(net, ep.EquilibriumPropagation(ep.symmetric(0.1), settle, settle))
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    assert all(value.grad_fn is None for value in model.settle(x).state.values())

    def tensors_after(sweeps):
        with torch.no_grad():
            scene = net.landscape(x)
            settled = ep.FixedSweeps(sweeps)(scene, scene.zeros())
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()), settled

    tensors_after(2)
    assert tensors_after(100)[0] <= tensors_after(3)[0]


def test_what_depends_on_the_input_alone_is_computed_once(monkeypatch):
    net = network()
    calls = []
    first = net.terms["input_layer1"].map
    convolve = type(first)._convolve
    monkeypatch.setattr(type(first), "_convolve", lambda self, pre: calls.append(self.in_shape) or convolve(self, pre))
    settle = ep.FixedSweeps(7)
    model = ep.Equilibrium(net, ep.EquilibriumPropagation(ep.symmetric(0.1), settle, settle))
    loss = model.loss(torch.randn(2, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1]))
    assert calls.count(first.in_shape) == 1
    loss.backward()
    assert calls.count(first.in_shape) == 2  # once more, with its graph, for the weights' gradient


def test_a_sweep_carries_each_synapse_once(monkeypatch):
    """Forward and transposed messages share one convolution, in every order."""
    for sweep in SWEEPS:
        torch.manual_seed(0)
        layers = [ep.ConvLayer(3, pool=None), ep.ConvLayer(3), ep.ConvLayer(3, pool=None), ep.DenseLayer(4)]
        net = ep.chain((2, 6, 6), layers).double()
        counts = {}
        for name, term in net.terms.items():
            if isinstance(term, ep.Synapse) and "input" not in name:
                carry = term.map.linearize
                counts[name] = 0

                def counted(pre, name=name, carry=carry, counts=counts):
                    counts[name] += 1
                    return carry(pre)

                monkeypatch.setattr(term.map, "linearize", counted)
        with torch.no_grad():
            scene = landscape(net)
            ep.FixedSweeps(10, sweep)(scene, scene.zeros())
        assert all(10 <= n <= 11 for n in counts.values()), (sweep.__name__, counts)


@pytest.mark.parametrize(
    "bad", [lambda: ep.FixedSweeps(0), lambda: ep.UntilConverged(0.0, 5), lambda: ep.UntilConverged(1e-3, 0)]
)
def test_settings_that_cannot_be(bad):
    with pytest.raises(ep.InputError):
        bad()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_messages_in_16_bits_come_near_and_leave_the_dtype_alone(dtype):
    net = network().float()
    x = torch.randn(4, 2, 6, 6)
    full = ep.Equilibrium(net, ep.InfinitesimalNudge(ep.FixedSweeps(60), damping=0.0))
    with torch.autocast("cpu", dtype=dtype):
        low = full.settle(x).state
    for node, value in full.settle(x).state.items():
        assert low[node].dtype == torch.float32
        assert 0 < float((low[node] - value).abs().max()) < 0.02
    y = torch.tensor([0, 1, 2, 3])
    records = [ep.Record(), ep.Record()]
    with torch.autocast("cpu", dtype=dtype):
        reduced = full.loss(x, y, record=records[1])
    losses = full.loss(x, y, record=records[0]), reduced
    gradients = [torch.autograd.grad(loss, list(net.parameters())) for loss in losses]  # outside, as users do
    whole, low = (record.nudged.state["layer1"] for record in records)
    assert 0 < float((low - whole).abs().max()) < 0.02 * float(whole.abs().max())  # the response had 16 bits too
    for exact, found in zip(*gradients, strict=True):
        assert found.dtype == torch.float32
        assert float(torch.nn.functional.cosine_similarity(found.flatten(), exact.flatten(), 0)) > 0.99


def test_what_was_remembered_in_16_bits_is_not_handed_out_in_32():
    scene = landscape(network().float().double())
    with torch.no_grad():
        state = ep.FixedSweeps(3)(scene, scene.zeros()).state
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = scene.drive(state, "layer2")
        torch.testing.assert_close(scene.drive(state, "layer2"), landscape(network()).drive(state, "layer2"))
    assert low.shape == state["layer2"].shape
