"""Oscillators: their energies and forces, what equilibrium propagation makes of them, and where it is blind."""

import numpy as np
import pytest
import torch

import eqprop as ep
from eqprop import physics, testing

N, OUT = 12, 3
HIDDEN = N - OUT
REST = ep.UntilConverged(1e-14, 60_000)


def drawn():
    """Couplings, fields and targets of ising_oscillator's twelve oscillators, and their start near phi = pi/2."""
    rng = np.random.default_rng(3)
    couplings = 0.3 * rng.standard_normal((N, N))
    couplings = np.triu(couplings, 1)
    fields, target = rng.standard_normal(N), np.array([[1.0, -1.0, 0.3]])
    return couplings, fields, target, 0.1 * rng.standard_normal(N)


def all_to_all(second, rest=REST):
    """Nine hidden oscillators and three outputs, every two of them coupled, and their start."""
    couplings, fields, target, start = drawn()
    nodes = {"h": ep.Node((HIDDEN,), physics.Phase()), "y": ep.Node((OUT,), physics.Phase())}
    shapes = {"h": (HIDDEN,), "y": (OUT,)}
    parts = [physics.PhaseCoupling("h", "y", (HIDDEN,), (OUT,))]
    for name, shape in shapes.items():
        parts += [
            made(name, shape) for made in (physics.LateralPhaseCoupling, physics.PhaseField, physics.SecondHarmonic)
        ]
    named = {f"{type(part).__name__}_{part.nodes[0]}": part for part in parts}
    network = ep.Network(nodes, named, physics.PhaseError("y", (OUT,)), clamped=()).double()
    parts = {"h": slice(0, HIDDEN), "y": slice(HIDDEN, N)}
    with torch.no_grad():
        network.couplings["PhaseCoupling_h"].strength.copy_(torch.as_tensor(couplings[:HIDDEN, HIDDEN:]))
        for name, rows in parts.items():
            network.couplings[f"LateralPhaseCoupling_{name}"].strength.copy_(torch.as_tensor(couplings[rows, rows]))
            network.couplings[f"PhaseField_{name}"].field.copy_(torch.as_tensor(fields[rows]))
            network.couplings[f"SecondHarmonic_{name}"].strength.fill_(second)
    begin = {name: -torch.as_tensor(start[rows])[None] for name, rows in parts.items()}
    return network, torch.as_tensor(target), ep.settling.FromState(begin, rest)


def strengths(network):
    return [part.strength for name, part in network.terms.items() if "Coupling" in name]


def flat(gradients):
    """Of the couplings, each pair once."""
    between, *within = gradients
    return torch.cat([between.flatten(), *(w[tuple(torch.triu_indices(*w.shape, 1))] for w in within)])


def learnt(network, target, estimator):
    loss = ep.Equilibrium(network, estimator, on_unsettled="raise").loss(torch.zeros(1, 0).double(), target)
    return flat(torch.autograd.grad(loss, strengths(network)))


def slope(network, target, solver, index, i, j):
    """The finite difference of the loss at rest by one coupling."""
    strength, values = strengths(network)[index], []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            strength[i, j] += step
            model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.1), solver, REST), "raise")
            values.append(float(model.loss(torch.zeros(1, 0).double(), target)))
            strength[i, j] -= step
    return (values[0] - values[1]) / 2e-5


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda: physics.PhaseCoupling("a", "b", (4,), (2, 3)), {"a": (4,), "b": (2, 3)}),
        (lambda: physics.LateralPhaseCoupling("a", (2, 3)), {"a": (2, 3)}),
        (lambda: physics.PhaseField("a", (2, 3), 1.0), {"a": (2, 3)}),
        (lambda: physics.SecondHarmonic("a", (5,), 0.7), {"a": (5,)}),
        (lambda: physics.PhaseInput("a", "b", (2, 2), (3,)), {"a": (2, 2), "b": (3,)}),
    ],
)
def test_couplings_conform(make, shapes):
    torch.manual_seed(0)
    testing.check_coupling(make(), shapes)


def test_units_and_the_loss_conform():
    testing.check_unit(physics.Phase())
    testing.check_loss(physics.PhaseError("a", (3,)), torch.arange(3), {"a": (3,)})


def test_the_energy_is_that_of_the_phases():
    network, _, _ = all_to_all(-0.4)
    couplings, fields, _, _ = drawn()
    phi = np.random.default_rng(0).uniform(-np.pi, np.pi, N)
    own = fields @ np.cos(phi) - 0.2 * np.cos(2 * phi).sum()
    expected = -(couplings * np.cos(phi[:, None] - phi[None, :])).sum() - own
    theta = torch.as_tensor(np.pi / 2 - phi)[None]
    landscape = network.landscape(torch.zeros(1, 0, dtype=torch.float64))
    with torch.no_grad():
        found = landscape.energy({"h": theta[:, :HIDDEN], "y": theta[:, HIDDEN:]})
    assert abs(float(found) - expected) < 1e-12


def test_the_errors_of_learning_are_those_on_record():
    network, target, solver = all_to_all(-1.0)
    exact = learnt(network, target, ep.ImplicitDifferentiation(solver, 1e-13))
    for index, i, j in ((0, 2, 1), (0, 8, 2), (1, 0, 5), (2, 1, 2)):
        marks = [torch.zeros_like(each) for each in strengths(network)]
        marks[index][i, j] = 1
        assert float(exact @ flat(marks)) == pytest.approx(slope(network, target, solver, index, i, j), abs=1e-8)

    def error(stencil):
        found = learnt(network, target, ep.EquilibriumPropagation(stencil, solver, REST))
        return float((found - exact).norm() / exact.norm())

    for beta, one_sided, centred in ((0.1, 2.8e-2, 2.8e-3), (0.01, 2.7e-3, 2.8e-5)):
        assert error(ep.one_sided(beta)) == pytest.approx(one_sided, rel=0.2)
        assert error(ep.symmetric(beta)) == pytest.approx(centred, rel=0.2)


@pytest.mark.parametrize(("second", "share"), [(0.5, 1.0), (0.0, 0.0), (-0.5, 0.0), (-1.0, 0.0)])
def test_a_strong_second_harmonic_makes_phases_collinear_and_learning_blind(second, share):
    network, target, solver = all_to_all(second, ep.UntilConverged(1e-7, 20_000))
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.1), solver, REST)
    state = ep.Equilibrium(network, estimator, "raise").settle(torch.zeros(1, 0, dtype=torch.float64)).state
    assert physics.collinear(state, 1e-4) == share
    size = float(learnt(network, target, estimator).abs().max())
    assert size < 1e-4 if share else size > 1e-2


@torch.no_grad()
def test_a_nudge_moves_no_phase_that_is_exactly_collinear():
    network, target, _ = all_to_all(-1.0)
    line = {"h": [[np.pi / 2] * HIDDEN], "y": [[-np.pi / 2] * OUT]}
    line = {node: torch.tensor(phases, dtype=torch.float64) for node, phases in line.items()}
    landscape = network.landscape(torch.zeros(1, 0, dtype=torch.float64))
    nudge = ep.energy.Nudge(network.loss, target, torch.full((1,), 5.0, dtype=torch.float64))
    nudged = landscape.with_term(".nudge", nudge)
    assert max(float(nudged.drive(line, node).abs().max()) for node in line) < 1e-14
    assert physics.collinear(line) == 1


def test_a_layered_network_learns_three_kinds():
    torch.manual_seed(0)
    network = physics.oscillator_network((6,), [12], 3, rate=0.2)
    x = torch.randn(3, 6).repeat(4, 1) + 0.1 * torch.randn(12, 6)
    y = torch.arange(3).repeat(4)
    solver = ep.FixedSweeps(100)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.5), solver, solver), "ignore")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    first = float(model.loss(x, y).detach())
    for _ in range(20):
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optimizer.step()
    assert float(model.loss(x, y).detach()) < first / 3
    assert bool((model(x).argmax(1) == y).all())
    assert float(model(x).detach().abs().max()) <= 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ep.InputError, match="Lateral"):
        physics.PhaseCoupling("a", "a", (2,), (2,))
    with pytest.raises(ep.InputError, match="no phases"):
        ep.Network({"a": ep.Node((2,), ep.tanh)}, [physics.PhaseField("a", (2,))])
    with pytest.raises(ep.InputError, match="shape"):
        ep.Network({"a": ep.Node((2,), physics.Phase())}, [physics.PhaseField("a", (3,))])
    nodes = {"a": ep.Node((2,), physics.Phase()), "b": ep.Node((2,), physics.Phase())}
    with pytest.raises(ep.InputError, match="holds no data"):
        ep.Network(nodes, [physics.PhaseInput("a", "b", (2,), (2,))])


def test_a_network_comes_back_from_its_spec():
    network = physics.oscillator_network((6,), [4], 3, second=-0.5)
    twin = ep.Network.from_spec(network.spec())
    twin.load_state_dict(network.state_dict())
    assert twin.spec() == network.spec()
