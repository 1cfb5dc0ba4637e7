"""What a loss keeps alive: as much as that of a plain network before its backward, nothing of the batch after it."""

import gc
import weakref

import pytest
import torch
from estimators import BATCH, CLASSES, SETTINGS, data, dense, equilibrium, named
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import eqprop as ep

SCALAR = 64
"""Bytes: a few numbers of a step (its loss, and the sum so far) may stay."""


class Storages(TorchDispatchMode):
    """Every storage that PyTorch makes meanwhile, in forward and backward, for as long as anything keeps it alive."""

    def __init__(self):
        super().__init__()
        self.made = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {StorageWeakRef(each.untyped_storage()).cdata for each in tensors((args, kwargs))}
        for each in tensors(result):
            storage = each.untyped_storage()
            reference = StorageWeakRef(storage)
            if reference.cdata not in given:  # a view of what was there before is not made here
                self.made.setdefault(reference.cdata, (reference, storage.nbytes()))
        return result

    def alive(self):
        """Bytes."""
        return sum(size for ref, size in self.made.values() if not ref.expired())


IMAGES = ("ep-symmetric-displacements", "ep-symmetric-states", "infinitesimal-conjugate-gradients", "through-time")


@pytest.fixture(params=[s for s in SETTINGS if s.kind == "dense" or s.case.name in IMAGES], ids=named)
def setting(request):
    """The counter is slow, so fewer networks than elsewhere: every estimator once, and what differs on images."""
    return request.param


def tensors(tree):
    return [each for each in tree_iter(tree) if isinstance(each, torch.Tensor)]


@pytest.fixture
def no_collector():
    """Reference counts alone free what is dropped: nothing may wait for the collector of cycles."""
    gc.disable()
    yield
    gc.enable()


def calls(model):
    """Each way to call a model, with an answer to call ``backward`` on."""
    return {
        "output": lambda x, y: F.cross_entropy(model(x), y),
        "loss": lambda x, y: model.loss(x, y, torch.rand(BATCH)),
    }


def test_the_counter_counts():
    """A plain network: the graph holds the activations, its end frees them; a tensor in a cycle stays."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, CLASSES))
    x, y = data(dense())
    storages = Storages()
    with storages:
        loss = F.cross_entropy(model(x), y)
        assert storages.alive() > 8 * BATCH * 5
        loss.backward()
        model.zero_grad()
        assert storages.alive() <= SCALAR
        cycle = [x + 1]
        cycle.append(cycle)
        del cycle
    gc.collect()


@pytest.mark.parametrize("call", ["output", "loss"])
def test_after_backward_nothing_of_the_batch_is_kept(setting, call, no_collector):
    model = setting.model()
    run = calls(model)[call]
    storages = Storages()
    with storages:
        x, y = (each.clone() for each in setting.data())
        loss = run(x, y)
        loss.backward()
        model.zero_grad(set_to_none=True)
        del x, y
        assert storages.alive() <= SCALAR


@pytest.mark.parametrize("call", ["output", "loss"])
def test_a_loss_dropped_without_backward_frees_everything(setting, call, no_collector):
    model = setting.model()
    run = calls(model)[call]
    storages = Storages()
    with storages:
        x, y = (each.clone() for each in setting.data())
        loss = run(x, y)
        kept = storages.alive()
        del x, y, loss
        assert storages.alive() == 0
    assert kept > 8 * BATCH  # it was there before


def test_states_and_data_die_with_the_loss(setting, no_collector):
    """By weak references, without a counter in between."""
    model = setting.model()
    x, y = (each.clone() for each in setting.data())
    record = ep.Record()
    loss = model.loss(x, y, record=record)
    dead = [weakref.ref(each) for each in (x, y, *record.free.state.values())]
    del x, y, record, loss
    assert not [ref for ref in dead if ref() is not None]


def test_a_record_keeps_its_own_tensors_alone(setting, no_collector):
    """Its states, without the graph by which they came about."""
    model = setting.model()
    storages = Storages()
    with storages:
        x, y = (each.clone() for each in setting.data())
        record = ep.Record()
        model.loss(x, y, record=record).backward()
        model.zero_grad(set_to_none=True)
        dead = weakref.ref(x)
        del x, y
    assert dead() is None
    assert all(not value.requires_grad for value in record.free.state.values())
    del record
    assert storages.alive() == 0


def test_a_prediction_keeps_nothing(setting, no_collector):
    model = setting.model()
    for predict in (lambda x, y: model(x), lambda x, y: model.settle(x), model.loss):
        storages = Storages()
        with storages, torch.no_grad():
            x, y = (each.clone() for each in setting.data())
            result = predict(x, y)
            del x, y, result
            assert storages.alive() == 0


def test_kept_losses_cost_as_much_as_a_plain_networks(setting, no_collector):
    """``total += loss`` beside each step's own backward: bytes a step that stay."""

    def kept(model, loss_of):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        total = torch.zeros(())
        storages = Storages()
        with storages:
            for _ in range(4):
                x, y = (each.clone() for each in setting.data())
                loss = loss_of(x, y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total = total + loss
            del x, y, loss
            optimiser.zero_grad()
        return storages.alive(), total

    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(setting.network().nodes["input"].units, CLASSES))
    model = setting.model()
    expected, _total = kept(plain, lambda x, y: F.cross_entropy(plain(x), y))
    found, _total = kept(model, model.loss)
    assert found <= expected + SCALAR


def test_two_thousand_kept_losses(no_collector):
    """Python's objects too: one node of the graph a step, no closures, no tensors."""
    network = ep.chain((6,), [ep.DenseLayer(CLASSES, ep.tanh)], ep.SquaredError)
    model = equilibrium(network, ep.EquilibriumPropagation(ep.one_sided(0.5), ep.FixedSweeps(1), ep.FixedSweeps(1)))
    x, y = data(network, batch=2)
    total = torch.zeros(())

    def steps(count):
        nonlocal total
        for _ in range(count):
            model.zero_grad()
            loss = model.loss(x.clone(), y.clone())
            loss.backward()
            total = total + loss

    def alive():
        gc.collect()
        every = gc.get_objects()
        return len(every), sum(issubclass(type(each), torch.Tensor) for each in every)

    steps(200)
    objects, tensors = alive()
    steps(1800)
    more_objects, more_tensors = alive()
    assert more_tensors - tensors <= 5
    assert more_objects - objects <= 5 * 1800
    assert total.isfinite()


def test_training_leaves_nothing_to_the_collector(setting, no_collector):
    """Thousands of tensors would wait for it between two of its runs."""
    model = setting.model()
    optimiser = torch.optim.Adam(model.parameters())
    x, y = setting.data()

    def step():
        optimiser.zero_grad(set_to_none=True)
        model.loss(x, y).backward()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    step()
    storages = Storages()
    with storages:
        step()
    assert storages.alive() == 0
