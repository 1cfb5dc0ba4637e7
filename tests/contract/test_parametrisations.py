"""A map's weight is what its module says it is: parametrisations, hooks and pruning, on every kind of map."""

import pytest
import torch
from estimators import CLASSES, data, dense, equilibrium, learnt, relative, shrunk
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

import eqprop as ep

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning", "ignore:.*spectral_norm:FutureWarning")


class Twice(nn.Module):
    """A parametrisation that counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, weight):
        self.calls += 1
        return torch.sin(2 * weight)


TECHNIQUES = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "older weight_norm": nn.utils.weight_norm,
    "older spectral_norm": nn.utils.spectral_norm,
    "l1_unstructured": lambda m: prune.l1_unstructured(m, "weight", 0.5),
    "random_unstructured": lambda m: prune.random_unstructured(m, "weight", 0.5),
    "ln_structured": lambda m: prune.ln_structured(m, "weight", 0.5, n=2, dim=0),
    "custom": lambda m: parametrize.register_parametrization(m, "weight", Twice()),
}


def linear_synapses():
    """Plain ``nn.Linear`` modules as maps."""
    torch.manual_seed(0)
    nodes = {"input": ep.Node((6,)), "layer1": ep.Node((5,), ep.tanh), "layer2": ep.Node((CLASSES,), ep.tanh)}
    couplings = {
        "input_layer1": ep.Synapse("input", "layer1", nn.Linear(6, 5)),
        "layer1_layer2": ep.Synapse("layer1", "layer2", nn.Linear(5, CLASSES)),
    }
    return shrunk(ep.Network(nodes, couplings, ep.SquaredError("layer2", (CLASSES,))))


def images():
    """The second convolution lies between nodes that settle, by units flat enough for orthogonal kernels."""
    torch.manual_seed(0)
    flat = ep.energy.Sigmoid(slope=1.0, centre=0.0)
    layers = [ep.ConvLayer(2, pool=None, activation=flat), ep.ConvLayer(3, pool=ep.MaxPool(2), activation=flat)]
    return shrunk(ep.chain((1, 4, 4), [*layers, ep.DenseLayer(CLASSES, ep.tanh)], ep.SquaredError))


MAKES = {"dense": dense, "conv": images, "module": linear_synapses}


def module_of(network, name):
    """The module that holds a coupling's weight."""
    found = network.couplings[name].map
    return found.module if isinstance(found, ep.energy.ModuleMap) else found


SLOTS = [(kind, name) for kind in MAKES for name in ("input_layer1", "layer1_layer2")]
ESTIMATORS = {
    "ep-displacements": lambda: ep.EquilibriumPropagation(ep.symmetric(0.2), ep.FixedSweeps(9), ep.FixedSweeps(6)),
    "ep-states": lambda: ep.EquilibriumPropagation(
        ep.symmetric(0.2), ep.FixedSweeps(9), ep.FixedSweeps(6), form=ep.learning.forms.states
    ),
    "implicit": lambda: ep.ImplicitDifferentiation(ep.FixedSweeps(40)),
    "through-time": lambda: ep.BackpropagationThroughTime(ep.FixedSweeps(9), 5),
}


def effective(module):
    """The weight that a module uses, in the graph of what it is made of: by its parametrisation, or by its hooks."""
    for hook in module._forward_pre_hooks.values():
        hook(module, None)
    return module.weight


def pair(make, names, technique):
    """A network with the technique on its maps; and a plain one whose weights are the effective ones."""
    network, plain = make(), make()
    for name in names:
        TECHNIQUES[technique](module_of(network, name))
    network.eval()
    with torch.no_grad():
        for name in names:
            module_of(plain, name).weight.copy_(effective(module_of(network, name)))
    return network, plain


def pulled_back(network, plain, names, loss_of, estimator):
    """The gradients of every parameter of ``network``: the plain network's, and through the effective weights."""
    by_name = dict(
        zip(dict(plain.named_parameters()), grads(loss_of(equilibrium(plain, estimator)), plain), strict=True)
    )
    known = {}
    for name in names:
        module = module_of(network, name)
        prefix = next(prefix for prefix, each in network.named_modules() if each is module)
        originals = {f"{prefix}.{key}": p for key, p in module.named_parameters() if key != "bias"}
        weight = by_name.pop(f"{prefix}.weight")
        found = torch.autograd.grad(effective(module), list(originals.values()), weight)
        known |= dict(zip(originals, found, strict=True))
    return known | by_name


def grads(loss, module):
    return torch.autograd.grad(loss, learnt(module))


def check(network, plain, names, estimator, tolerance=1e-6):
    x, y = data(network)
    for loss_of in (lambda m: m.loss(x, y), lambda m: F.cross_entropy(m(x), y)):
        known = pulled_back(network, plain, names, loss_of, estimator())
        model = equilibrium(network, estimator()).eval()
        found = dict(zip(dict(network.named_parameters()), grads(loss_of(model), network), strict=True))
        assert found.keys() == known.keys()
        for key, value in known.items():
            assert relative(found[key], value) < tolerance, key


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize(("kind", "name"), SLOTS, ids=lambda each: str(each))
def test_gradients_on_the_originals_are_exact(kind, name, technique):
    """Equal to the plain network's, pulled back through the effective weight; for each of two exact estimators."""
    for estimator in (ESTIMATORS["implicit"], ESTIMATORS["through-time"]):
        check(*pair(MAKES[kind], [name], technique), [name], estimator)


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize("estimator", ["ep-displacements", "ep-states"])
def test_gradients_of_finite_nudges_pass_through_too(kind, technique, estimator):
    """Of both maps at once."""
    names = ["input_layer1", "layer1_layer2"]
    check(*pair(MAKES[kind], names, technique), names, ESTIMATORS[estimator])


@pytest.mark.parametrize("technique", ["weight_norm", "older weight_norm"])
def test_every_estimator_differentiates_through_them(case, technique):
    """Rules that move weights within a batch move the originals, so that theirs are the same as the rate falls."""
    names = ["input_layer1", "layer1_layer2"]
    check(*pair(dense, names, technique), names, case.make, 0.05 if case.moves else 1e-6)


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize(("kind", "name"), SLOTS, ids=lambda each: str(each))
def test_predictions_follow_them(kind, name, technique):
    network, plain = pair(MAKES[kind], [name], technique)
    x, _ = data(network)
    with torch.no_grad():
        known = equilibrium(plain, ESTIMATORS["implicit"]())(x)
        model = equilibrium(network, ESTIMATORS["implicit"]()).eval()
        torch.testing.assert_close(model(x), known)
        module = module_of(network, name)
        for key, original in module.named_parameters():
            if key != "bias":
                original.add_(0.3 * torch.randn_like(original))
        module_of(plain, name).weight.copy_(effective(module))
        moved = equilibrium(plain, ESTIMATORS["implicit"]())(x)
        assert relative(moved, known) > 1e-5
        torch.testing.assert_close(model(x), moved)
        torch.testing.assert_close(model.settle(x).state[network.output], moved)


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_several_steps_train(kind, technique, estimator):
    """In train mode, where spectral norms take a step of their power iteration at each call."""
    network = MAKES[kind]()
    for name in ("input_layer1", "layer1_layer2"):
        TECHNIQUES[technique](module_of(network, name))
    model = equilibrium(network, ESTIMATORS[estimator]())
    x, y = data(network)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_what_is_pruned_stays_so():
    network = dense()
    module = module_of(network, "layer1_layer2")
    prune.l1_unstructured(module, "weight", 0.5)
    model = equilibrium(network, ESTIMATORS["ep-displacements"]())
    x, y = data(network)
    model.loss(x, y).backward()
    pruned = module.weight_mask == 0
    assert int(pruned.sum()) == module.weight_mask.numel() // 2
    assert float(module.weight_orig.grad[pruned].abs().max()) == 0
    prune.remove(module, "weight")
    model.loss(x, y).backward()
    assert float(module.weight.grad[pruned].abs().min()) > 0


@pytest.mark.parametrize("call", ["output", "loss"])
def test_an_effective_weight_is_computed_once_a_call(case, call):
    network = dense()
    counters = {}
    for name in ("input_layer1", "layer1_layer2"):
        counters[name] = Twice()
        parametrize.register_parametrization(module_of(network, name), "weight", counters[name])
    model = case.model(network)
    x, y = data(network)
    for counter in counters.values():
        counter.calls = 0
    value = model.loss(x, y) if call == "loss" else F.cross_entropy(model(x), y)
    assert [counter.calls for counter in counters.values()] == [1, 1]
    value.backward()
    assert [counter.calls for counter in counters.values()] == [1, 1]
    with torch.no_grad():
        model(x)
    assert [counter.calls for counter in counters.values()] == [2, 2]


@pytest.mark.parametrize("technique", ["weight_norm", "custom"])
def test_within_cached_parametrisations(case, technique):
    """``parametrize.cached()`` lends one weight to all calls, whose graph leads to the originals."""
    x, y = data(dense())

    def found(cached):
        network = dense()
        for name in ("input_layer1", "layer1_layer2"):
            TECHNIQUES[technique](module_of(network, name))
        model = case.model(network)
        if not cached:
            return grads(model.loss(x, y), model), grads(F.cross_entropy(model(x), y), model)
        with parametrize.cached():
            first, second = model.loss(x, y), F.cross_entropy(model(x), y)
            wanted = learnt(model)
            return tuple(torch.autograd.grad(each, wanted, retain_graph=True) for each in (first, second))

    if case.name.startswith("ep-random-sign"):
        pytest.skip("The order of its draws differs.")
    for with_cache, without in zip(found(True), found(False), strict=True):
        for a, b in zip(with_cache, without, strict=True):
            assert float(b.norm()) > 0
            assert relative(a, b) < 1e-9


def test_a_parametrised_readout():
    """The loss's own parameters too."""
    torch.manual_seed(0)
    network = dense(loss=lambda node, shape: ep.ReadoutCrossEntropy(node, shape, CLASSES))
    plain = dense(loss=lambda node, shape: ep.ReadoutCrossEntropy(node, shape, CLASSES))
    plain.load_state_dict(network.state_dict())
    parametrizations.weight_norm(network.loss.readout)
    x, y = data(network)
    for estimator in ESTIMATORS.values():
        weight = equilibrium(plain, estimator()).loss(x, y)
        by_weight = dict(zip(dict(plain.named_parameters()), grads(weight, plain), strict=True))
        originals = list(network.loss.readout.parametrizations.parameters())
        known = torch.autograd.grad(network.loss.readout.weight, originals, by_weight["loss.readout.weight"])
        found = torch.autograd.grad(equilibrium(network, estimator()).loss(x, y), originals)
        for a, b in zip(found, known, strict=True):
            assert relative(a, b) < 1e-9


def test_a_parametrised_bias(case):
    network, plain = dense(), dense()
    parametrize.register_parametrization(network.couplings["layer1_bias"], "bias", Twice())
    with torch.no_grad():
        plain.couplings["layer1_bias"].bias.copy_(network.couplings["layer1_bias"].bias)
    x, y = data(network)
    (by_bias,) = torch.autograd.grad(case.model(plain).loss(x, y), plain.couplings["layer1_bias"].bias)
    (original,) = network.couplings["layer1_bias"].parameters()
    (known,) = torch.autograd.grad(network.couplings["layer1_bias"].bias, original, by_bias)
    (found,) = torch.autograd.grad(case.model(network).loss(x, y), original)
    assert relative(found, known) < (0.05 if case.moves else 1e-9)


@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize("name", ["input_layer1", "layer1_layer2"])
def test_forward_hooks_fire(kind, name):
    """As those of profilers and feature extractors: with the map's input and output."""
    network = MAKES[kind]()
    seen = []
    module_of(network, name).register_forward_hook(lambda module, given, output: seen.append(output.shape))
    model = equilibrium(network, ESTIMATORS["ep-displacements"]())
    x, y = data(network)
    with torch.no_grad():
        model(x)
    assert seen
    seen.clear()
    model.loss(x, y).backward()
    assert seen


@pytest.mark.parametrize("kind", [kind for kind in MAKES if kind != "module"])  # whose derivative follows its hooks
@pytest.mark.parametrize("name", ["input_layer1", "layer1_layer2"])
def test_a_forward_hook_that_returns_another_output_is_refused(kind, name):
    """The transposed message would not follow it."""
    network = MAKES[kind]()
    handle = module_of(network, name).register_forward_hook(lambda module, given, output: 2 * output)
    model = equilibrium(network, ESTIMATORS["ep-displacements"]())
    x, y = data(network)
    for call in (lambda: model(x), lambda: model.loss(x, y), lambda: model.settle(x)):
        with pytest.raises(ep.InputError, match="hook"):
            call()
    handle.remove()
    model.loss(x, y).backward()


def test_the_pull_back_itself():
    """On a plain linear layer, each technique: what the tests above compare with is PyTorch's own gradient."""
    x = torch.randn(6, 5)
    for technique, apply in TECHNIQUES.items():
        torch.manual_seed(0)
        module = nn.Linear(5, 4, bias=False)
        apply(module)
        module.eval()
        originals = list(module.parameters())
        known = torch.autograd.grad(module(x).square().sum(), originals)
        weight = effective(module).detach().requires_grad_()
        (by_weight,) = torch.autograd.grad(F.linear(x, weight).square().sum(), weight)
        for a, b in zip(torch.autograd.grad(effective(module), originals, by_weight), known, strict=True):
            torch.testing.assert_close(a, b, msg=technique)
