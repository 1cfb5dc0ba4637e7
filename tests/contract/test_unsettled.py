"""A network that did not settle says so: by a status in the record, and by a warning or an error of the model."""

import warnings

import pytest
import torch
from estimators import data, dense

import eqprop as ep
from eqprop import errors, settling


def deep(factor, layers=40):
    """Tanh layers, their default weights times ``factor``."""
    torch.manual_seed(0)
    network = ep.chain(
        (10,), [ep.DenseLayer(8, ep.tanh) for _ in range(layers - 1)] + [ep.DenseLayer(4, ep.tanh)], ep.SquaredError
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "weight" in name:
                parameter.mul_(factor)
    return network


def exploding():
    """Linear units whose feedback grows without bound."""
    torch.manual_seed(0)
    network = ep.chain((6,), [ep.DenseLayer(5, ep.identity), ep.DenseLayer(4, ep.identity)], ep.SquaredError)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(5)
    return network


def model(network, free=12, nudged=6, **options):
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.1), ep.FixedSweeps(free), ep.FixedSweeps(nudged))
    return ep.Equilibrium(network, estimator, **options)


def statuses(solution):
    """The distinct ones of a batch."""
    status = solution.status
    return {settling.Status(int(each)) for each in status} if isinstance(status, torch.Tensor) else set(status)


def of(network, batch=4):
    return data(network, batch=batch)


def caught(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    return result, [each for each in found if issubclass(each.category, errors.NotSettledWarning)]


UNSETTLED = {
    "weights times 5": lambda: (exploding(), 12, 6),
    "weights times 5, to infinity": lambda: (exploding(), 2000, 6),
    "40 layers, 12 sweeps": lambda: (deep(1.5), 12, 6),
    "40 layers, default weights": lambda: (deep(1.0), 12, 6),
}


@pytest.mark.parametrize("kind", UNSETTLED)
def test_the_status_says_so(kind):
    network, free, nudged = UNSETTLED[kind]()
    record = ep.Record()
    x, y = of(network)
    model(network, free, nudged, on_unsettled="ignore").loss(x, y, record=record)
    assert len(record.free.status) == 4
    assert settling.Status.SETTLED not in statuses(record.free)


def test_fewer_sweeps_than_a_signal_needs_to_cross_are_not_settled():
    """However small the last step is: far from the input and the output nothing has moved yet."""
    network = deep(0.05)
    x, y = of(network)
    record = ep.Record()
    model(network, 12, 6, on_unsettled="ignore").loss(x, y, record=record).backward()
    assert float(record.free.residual.max()) < 1e-9
    for phase in (record.free, record.nudged):  # unless not a bit changes any more: that is rest, whatever came of it
        assert not (phase.settled & (phase.residual > 0)).any()
        assert settling.Status.SETTLED not in statuses(phase) or not phase.residual.any()


def test_small_steps_far_from_rest_are_not_settled():
    """A tolerance on the last step is no distance: the nudge has crossed 3 of 40 layers when its step is below it."""
    network = deep(1.5)
    x, y = of(network)
    solver = ep.UntilConverged(1e-3, 2000)
    record = ep.Record()
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.1), solver, solver)
    loss = ep.Equilibrium(network, estimator, on_unsettled="ignore").loss(x, y, record=record)
    found = torch.autograd.grad(loss, list(network.parameters()))
    exact = ep.Equilibrium(network, ep.ImplicitDifferentiation(ep.UntilConverged(1e-14, 2000)), on_unsettled="ignore")
    known = torch.autograd.grad(exact.loss(x, y), list(network.parameters()))
    # Not by `cosine_similarity`, which takes lengths below 1e-8 for 1e-8: first layers' gradients are far smaller.
    pairs = [(a.flatten() / a.norm(), b.flatten() / b.norm()) for a, b in zip(found, known, strict=True)]
    wrong = min(float(a @ b) for a, b in pairs)
    if int(record.nudged.sweeps.max()) < 40:  # unless the solver went on by itself until the nudge had crossed
        assert settling.Status.SETTLED not in statuses(record.nudged)
    else:
        assert wrong > 0.9


def test_a_settled_network_says_so_and_does_not_warn():
    network = dense()
    x, y = of(network)
    record = ep.Record()

    def call():
        found = model(network, 40, 40)
        found.loss(x, y, record=record).backward()
        found(x).sum().backward()
        found.settle(x)

    _, warned = caught(call)
    assert not warned
    assert statuses(record.free) == statuses(record.nudged) == {settling.Status.SETTLED}


def test_the_status_is_each_examples_own():
    network = exploding()
    x, _ = of(network)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.zero_()
    x[1] = 0  # the zero state is at rest, however strong the weights are
    solution = model(network, 12, on_unsettled="ignore").settle(x)
    settled = [statuses(solution.select(torch.tensor([i]))) == {settling.Status.SETTLED} for i in range(4)]
    assert settled == [False, True, False, False]


def test_values_that_are_not_finite_have_a_status_of_their_own():
    network = exploding()
    x, _ = of(network)
    long = model(network, 3000, on_unsettled="ignore").settle(x)
    short = model(network, 12, on_unsettled="ignore").settle(x)
    assert not bool(long.state["layer2"].isfinite().all())
    assert statuses(long).isdisjoint(statuses(short))


@pytest.mark.parametrize("kind", UNSETTLED)
def test_a_model_warns_once(kind):
    """Naming the node, its residual, and what to do."""
    network, free, nudged = UNSETTLED[kind]()
    x, y = of(network)
    found = model(network, free, nudged)
    (_, first), (_, second) = caught(lambda: found.loss(x, y)), caught(lambda: found.loss(x, y))
    assert len(first) == 1
    assert not second
    message = str(first[0].message)
    assert any(f"layer{i}" in message for i in range(1, 41))
    assert any(character.isdigit() for character in message)
    assert "sweeps" in message
    assert "\n" not in message
    assert len(caught(lambda: model(network, free, nudged)(x))[1]) == 1  # another model, another warning


@pytest.mark.parametrize("call", ["output", "loss", "settle"])
def test_a_model_raises_if_it_is_told_to(call):
    network = exploding()
    x, y = of(network)
    found = model(network, on_unsettled="raise")
    with pytest.raises(ep.NotSettledError, match=r"layer\d.*sweeps"):
        {"output": lambda: found(x), "loss": lambda: found.loss(x, y), "settle": lambda: found.settle(x)}[call]()


def test_a_nudged_phase_that_did_not_settle_warns_or_raises_in_the_backward():
    """The free phase has many sweeps, the nudged one a single one."""
    torch.manual_seed(0)
    network = ep.chain(
        (6,), [ep.DenseLayer(5, ep.tanh) for _ in range(4)] + [ep.DenseLayer(4, ep.tanh)], ep.SquaredError
    )
    x, y = of(network)
    loss = model(network, 300, 1, on_unsettled="raise").loss(x, y)
    with pytest.raises(ep.NotSettledError):
        loss.backward()
    warning = model(network, 300, 1)
    loss, none = caught(lambda: warning.loss(x, y))
    assert not none
    assert len(caught(loss.backward)[1]) == 1


def test_a_model_is_quiet_if_it_is_told_to():
    network = exploding()
    x, y = of(network)
    found = model(network, on_unsettled="ignore")
    assert not caught(lambda: found.loss(x, y).backward())[1]
    assert not caught(lambda: found(x).sum().backward())[1]


@pytest.mark.parametrize("choice", ["warning", "error", "", None, True])
def test_another_choice_is_refused(choice):
    with pytest.raises(ep.InputError, match="on_unsettled"):
        model(dense(), on_unsettled=choice)


def test_the_warning_is_a_user_warning_that_filters_take():
    assert issubclass(errors.NotSettledWarning, UserWarning)
    network = exploding()
    x, y = of(network)
    with warnings.catch_warnings():
        warnings.simplefilter("error", errors.NotSettledWarning)
        with pytest.raises(errors.NotSettledWarning):
            model(network).loss(x, y)


def test_an_unstable_state_that_conjugate_gradients_meet():
    """Its status says so, in the record of the linear phase."""
    network = exploding()
    x, y = of(network)
    estimator = ep.InfinitesimalNudge(ep.FixedSweeps(12), ep.settling.ConjugateGradients(12))
    record = ep.Record()
    ep.Equilibrium(network, estimator, on_unsettled="ignore").loss(x, y, record=record).backward()
    assert settling.Status.SETTLED not in statuses(record.nudged)


def test_what_one_pass_computes_is_settled(case):
    """Feedforward estimators have nothing to settle, and every other one settles a network of weak feedback at once."""
    if case.moves:
        pytest.skip("Its phases are single sweeps, during which the weights move.")
    network = dense()
    with torch.no_grad():
        network.couplings["layer1_layer2"].map.weight.mul_(1e-3)
    x, y = data(network)
    found = case.model(network, on_unsettled="raise")
    found.loss(x, y).backward()
