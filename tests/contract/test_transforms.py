"""Other tensors in a model's place, and PyTorch's function transforms: supported, or refused in the library's words."""

import pytest
import torch
from estimators import CLASSES, data, dense, equilibrium, gradients, learnt, readout, relative
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import eqprop as ep


def others(model, scale=0.9, requires_grad=True):
    """Other values for every parameter, by name."""
    return {
        name: (scale * parameter.detach() + 0.01).requires_grad_(requires_grad)
        for name, parameter in model.named_parameters()
    }


def holding(setting, values):
    """The same model with these values as its own."""
    model = setting.model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    return model


@pytest.mark.parametrize("call", ["output", "loss"])
def test_a_functional_call_differentiates_by_what_it_is_given(setting, call):
    """Also when the backward comes after the call has put the module's own parameters back."""
    x, y = setting.data()
    model = setting.model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    given = others(model)
    known = holding(setting, given)
    if call == "loss":
        value, own = functional_call(model, given, (x, y)), known.loss(x, y)
    else:
        value, own = (F.cross_entropy(out, y) for out in (functional_call(model, given, (x,)), known(x)))
    torch.testing.assert_close(value, own)
    found = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(given.values()))])
    assert relative(found, gradients(own, known)) < 1e-9
    for name, parameter in model.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


def test_frozen_substitutes_are_the_ones_that_answer(setting):
    """The saliency of averaged weights: no parameter learns, and the input's gradient is that of the substitutes."""
    x, _ = setting.data()
    x.requires_grad_()
    model = setting.model()
    given = others(model, requires_grad=False)
    (found,) = torch.autograd.grad(functional_call(model, given, (x,))[:, 1].sum(), x)
    twin = holding(setting, given).requires_grad_(False)  # rules that move weights move those that learn
    (known,) = torch.autograd.grad(twin(x)[:, 1].sum(), x)
    assert relative(found, known) < 1e-9


def test_some_substitutes_and_the_rest_the_modules_own(case):
    x, y = data(dense())
    model = case.model(dense())
    name = "network.couplings.layer1_layer2.map.weight"
    given = {name: (0.5 * model.get_parameter(name).detach()).requires_grad_()}
    wanted = [given[name], model.get_parameter("network.couplings.input_layer1.map.weight")]
    found = torch.autograd.grad(functional_call(model, given, (x, y)), wanted)
    twin = case.model(dense())
    with torch.no_grad():
        twin.get_parameter(name).mul_(0.5)
    own = [twin.get_parameter(each) for each in (name, "network.couplings.input_layer1.map.weight")]
    for a, b in zip(found, torch.autograd.grad(twin.loss(x, y), own), strict=True):
        assert relative(a, b) < 1e-9
    assert all(p.grad is None for p in model.parameters())


def test_substitutes_that_were_made_of_other_tensors(case):
    """As a hyper-network or one step of meta-learning makes them: the gradient goes on to what made them."""
    x, y = data(dense())
    model = case.model(dense())
    scale = torch.tensor(0.9).requires_grad_()
    given = {name: scale * p.detach() for name, p in model.named_parameters()}
    (found,) = torch.autograd.grad(functional_call(model, given, (x, y)), scale)
    twin = case.model(dense())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.9)
    by_parameter = torch.autograd.grad(twin.loss(x, y), learnt(twin))
    known = sum((g * p.detach() / 0.9).sum() for g, p in zip(by_parameter, learnt(twin), strict=True))
    torch.testing.assert_close(found, known)


def test_a_readout_is_substituted_too(case):
    if case.name.startswith(("ep-clamp-", "ep-soft-clamp", "predictive")):
        pytest.skip("A read-out does not say where to hold its node.")
    x, y = data(readout())
    model = case.model(readout())
    given = others(model)
    found = torch.autograd.grad(functional_call(model, given, (x, y)), list(given.values()))
    twin = case.model(readout())
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(given[name])
    known = gradients(twin.loss(x, y), twin)
    assert relative(torch.cat([g.flatten() for g in found]), known) < 1e-9


def test_transforms_of_gradients_are_refused_in_the_librarys_words(case):
    x, y = data(dense())
    model = case.model(dense())
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x, y):
        return functional_call(model, parameters, (x, y))

    each = torch.func.grad(lambda p, x, y: loss(p, x[None], y[None]))
    tries = {
        "grad": lambda: torch.func.grad(loss)(parameters, x, y),
        "vjp": lambda: torch.func.vjp(lambda p: loss(p, x, y), parameters)[1](torch.tensor(1.0)),
        "jacrev": lambda: torch.func.jacrev(model)(x),
        "jacfwd": lambda: torch.func.jacfwd(model)(x),
        "jvp": lambda: torch.func.jvp(model, (x,), (torch.ones_like(x),)),
        "vmap of gradients": lambda: torch.vmap(each, (None, 0, 0))(parameters, x, y),
        "grad by x": lambda: torch.func.grad(lambda x: model(x).sum())(x),
    }
    for attempt in tries.values():
        with pytest.raises(ep.InputError, match=r"torch\.func|vmap|transform"):
            attempt()


def sweeps_alone(setting):
    if setting.case.name == "ep-until-converged":
        pytest.skip("How many sweeps it takes depends on the data.")


def test_predictions_are_mapped_over_examples(setting):
    sweeps_alone(setting)
    x, _ = setting.data()
    model = setting.model()
    with torch.no_grad():
        found = torch.vmap(lambda one: model(one[None])[0])(x)
        torch.testing.assert_close(found, model(x))


def test_predictions_are_mapped_over_an_ensemble(setting):
    sweeps_alone(setting)
    x, _ = setting.data()
    models = [holding(setting, others(setting.model(), scale)) for scale in (0.5, 0.8, 1.1)]
    parameters, buffers = torch.func.stack_module_state(models)
    base = setting.model()
    with torch.no_grad():
        found = torch.vmap(lambda p, b: functional_call(base, (p, b), (x,)))(parameters, buffers)
        for each, model in zip(found, models, strict=True):
            torch.testing.assert_close(each, model(x))


@pytest.mark.parametrize("call", ["output", "loss"])
def test_a_checkpointed_call_has_the_same_gradients(case, call):
    """``torch.utils.checkpoint``: saved tensors are dropped, and made again in the backward."""
    x, y = data(dense())
    x.requires_grad_()

    def found(again):
        model = case.model(dense())
        arguments = (x, y) if call == "loss" else (x,)
        value = checkpoint(model, *arguments, use_reentrant=False) if again else model(*arguments)
        loss = value if call == "loss" else F.cross_entropy(value, y)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [x, *learnt(model)])])

    if case.name.startswith("ep-random-sign"):
        pytest.skip("It draws again.")
    assert relative(found(True), found(False)) < 1e-12


def test_saved_tensors_pass_the_users_hooks(case):
    """``saved_tensors_hooks``, by which activations are kept on disk or in other memory."""
    x, y = data(dense())
    seen = []

    def pack(tensor):
        seen.append(tensor.detach().clone())
        return len(seen) - 1

    model = case.model(dense())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda i: seen[i]):
        loss = model.loss(x, y)
    found = gradients(loss, model)
    twin = case.model(dense())
    known = gradients(twin.loss(x, y), twin)
    assert relative(found, known) < 1e-12
    assert any(each.shape == x.shape and torch.equal(each, x) for each in seen)


def test_a_block_within_a_larger_functional_model(case):
    """A stem before, a head behind; every tensor substituted."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 3), torch.arange(6) % 3

    def build():
        torch.manual_seed(1)
        stem, head = torch.nn.Linear(3, 6), torch.nn.Linear(CLASSES, 3)
        return torch.nn.Sequential(stem, case.model(dense()), head)

    model, twin = build(), build()
    given = others(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(given[name])
    loss = F.cross_entropy(functional_call(model, given, (x,)), y)
    found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(given.values()))])
    assert relative(found, gradients(F.cross_entropy(twin(x), y), twin)) < 1e-9


def test_no_grad_and_inference_mode_predict(setting):
    x, y = setting.data()
    model = setting.model()
    known = model(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(model(x), known)
        assert not model.loss(x, y).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(model(x), known)
        model.loss(x, y)
    frozen = equilibrium(setting.network().requires_grad_(False), setting.case.make())
    assert not frozen(x).requires_grad
    assert not frozen.loss(x, y).requires_grad
