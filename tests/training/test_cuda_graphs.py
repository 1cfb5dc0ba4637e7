"""Steps captured as CUDA graphs: what can be captured never waits for the device, and the rest is refused.

What needs a GPU is tested where there is one.
"""

import contextlib
import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import eqprop as ep
from eqprop.cli import main
from eqprop.energy import Clip, MaxPool
from eqprop.errors import InputError, NotSettledError
from eqprop.learning import InfinitesimalNudge, Noisy, RandomSign, contrastive, vector_field
from eqprop.learning.equilibrium import Record
from eqprop.learning.penalties import RayleighPenalty
from eqprop.learning.stencils import Nudging, holomorphic
from eqprop.recipes import RECIPES
from eqprop.settling import ConjugateGradients, FixedSweeps, FromFeedforward, UntilConverged, relative_norm
from eqprop.substrates import find_substrate
from eqprop.training.cuda_graphs import Captured, Graphed, ahead, check_capturable
from eqprop.training.vitals import Vitals

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
pytestmark = pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS")  # PyTorch, in a thread of autograd

until = UntilConverged(1e-9, 6, norm=relative_norm, over_relaxation=1.5)  # all 6 sweeps; it still moves then
ESTIMATORS = {
    "fast": RayleighPenalty(InfinitesimalNudge(FromFeedforward(until), ConjugateGradients(4, 1e-3), 0.25), 1.0),
    "infinitesimal": InfinitesimalNudge(FixedSweeps(12), ConjugateGradients(6)),
    "ep": ep.EquilibriumPropagation(ep.symmetric(0.5), FixedSweeps(12), FixedSweeps(6)),
    "holomorphic": ep.EquilibriumPropagation(holomorphic(0.5, 4), FixedSweeps(12), FixedSweeps(6)),
    "backpropagation": ep.Backpropagation(),
}


def network(smooth=False):
    torch.manual_seed(3)
    unit = ep.sigmoid if smooth else Clip(0.5)
    pool = ep.AveragePool(2) if smooth else MaxPool(2)
    layers = [ep.ConvLayer(6, pool=pool, activation=unit), ep.ConvLayer(8, pool=None, activation=unit)]
    return ep.chain((2, 8, 8), layers, lambda node, shape: ep.ReadoutCrossEntropy(node, shape, 3))


def model_of(name):
    return ep.Equilibrium(network(name == "holomorphic"), ESTIMATORS[name], on_unsettled="ignore")


def batch(size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 2, 8, 8, generator=generator), torch.randint(3, (size,), generator=generator)


def stepping(model, bits=False):
    def step(x, y):
        record = Record()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bits):
            loss = model(x, y, record=record)
        model.zero_grad()
        loss.backward()
        return loss.detach(), record.free.residual, Vitals.of(loss, record, model.named_parameters()).values

    return step


def gradients(model):
    return [p.grad.detach().cpu().clone() for p in model.parameters()]


class Waits(TorchDispatchMode):
    """The operations that would wait for an accelerator."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        masks = args[1] if name.startswith("aten.index.") else ()
        if any(each in name for each in ("_local_scalar_dense", "nonzero", "masked_select", "equal.", "lift_fresh")):
            self.found.append(name)
        if any(mask is not None and mask.dtype == torch.bool for mask in masks):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def captured(monkeypatch):
    """As if every operation was captured."""
    for module in ("solvers", "conjugate_gradients"):
        monkeypatch.setattr(f"eqprop.settling.{module}.capturing", lambda tensor: True)


def without_checks_of_labels(monkeypatch):
    """PyTorch and the network check labels on the CPU alone."""
    from eqprop.energy import losses

    monkeypatch.setattr(losses, "check_labels", lambda *_: None)
    one_hot = torch.nn.functional.one_hot
    seen = {}

    def known(labels, classes):
        key = (tuple(labels.shape), classes)
        return seen[key] if key in seen else one_hot(labels, classes)

    for size in (6, 12, 24):
        labels = batch(6)[1].repeat(size // 6)
        seen[((size,), 3)] = one_hot(labels, 3)
    monkeypatch.setattr(losses.F, "one_hot", known)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_captured_step_waits_for_nothing(name, captured, monkeypatch):
    without_checks_of_labels(monkeypatch)
    step, (x, y) = stepping(model_of(name)), batch()
    with Waits() as waits:
        step(x, y)
    assert waits.found == []


def test_the_watch_sees_what_waits(monkeypatch):
    without_checks_of_labels(monkeypatch)
    step, (x, y) = stepping(model_of("fast")), batch()
    with Waits() as waits:
        step(x, y)
    assert waits.found


def test_captured_sweeps_end_at_the_same_rest(captured, double):
    """All examples make the largest number of sweeps."""
    model, x = model_of("fast").double(), batch()[0]
    solution = model.settle(x.double())
    exact = network().double()
    exact.load_state_dict(model.network.state_dict())
    rest = ep.Equilibrium(exact, InfinitesimalNudge(FixedSweeps(200)), on_unsettled="ignore").settle(x.double())
    assert solution.sweeps.tolist() == [6] * 6
    for node, value in rest.state.items():
        torch.testing.assert_close(solution.state[node], value, rtol=0, atol=1e-3)


def test_conjugate_gradients_are_the_same_without_a_look(monkeypatch, double):
    found = []
    for captured in (False, True):
        if captured:
            monkeypatch.setattr("eqprop.settling.conjugate_gradients.capturing", lambda tensor: True)
        model = ep.Equilibrium(network().double(), InfinitesimalNudge(FixedSweeps(200), ConjugateGradients(60, 1e-9)))
        x, y = batch()
        model.loss(x.double(), y).backward()
        found.append(gradients(model))
    for once, again in zip(*found, strict=True):
        torch.testing.assert_close(once, again, rtol=1e-12, atol=1e-14)


def refused(model, device="cuda", processes=1):
    with pytest.raises(InputError, match="leave out --cuda_graph") as told:
        check_capturable(model, torch.device(device), processes)
    return str(told.value)


def test_what_differs_from_step_to_step_is_refused():
    model = model_of("ep")
    for name in ESTIMATORS:
        check_capturable(model_of(name), torch.device("cuda"), 1)
    assert "cpu" in refused(model, "cpu")
    assert "2 processes" in refused(model, processes=2)
    dropping = ep.chain(
        (2, 8, 8), [ep.ConvLayer(6, dropout=0.1)], lambda node, shape: ep.ReadoutCrossEntropy(node, shape, 3)
    )
    assert "dropped at random" in refused(ep.Equilibrium(dropping, ESTIMATORS["ep"]))
    drawing = replace(ESTIMATORS["ep"], nudging=RandomSign(0.5), rule=vector_field)
    assert "random" in refused(ep.Equilibrium(network(), drawing, on_unsettled="ignore"))

    class Turning(Nudging):
        turn = 0

        def draw(self):
            self.turn += 1
            return ep.symmetric((-1) ** self.turn * 0.5)

    turning, noisy = (
        replace(ESTIMATORS["ep"], nudging=Turning()),
        replace(ESTIMATORS["ep"], rule=Noisy(contrastive, 1.0)),
    )
    for estimator in (turning, RayleighPenalty(turning, 1.0), noisy):
        assert "may differ from step to step" in refused(ep.Equilibrium(network(), estimator, on_unsettled="ignore"))
    assert '"ignore"' in refused(ep.Equilibrium(network(), ESTIMATORS["ep"]))
    assert "network runs on" in refused(ep.Equilibrium(network().on(find_substrate("pcm")), ESTIMATORS["ep"]))


def test_predictive_coding_by_nudges_is_refused_and_by_backpropagation_is_not():
    """Its terms compare states, and so wait for the device."""
    recipe = RECIPES["digits-pc"]
    few = {"train_images": 64, "epochs": 1}
    assert "predictive-coding" in refused(recipe(**few).model)
    check_capturable(recipe(**few, rule="backpropagation").model, torch.device("cuda"), 1)


class Rerun:
    """In place of a graph: makes the step again on the tensors that were captured."""

    def __init__(self, step, x, y, found, parameters, gradients):
        self.again, self.found = (lambda: step(x, y)), found
        self.parameters, self.gradients = parameters, gradients

    def replay(self):
        for own, new in zip(tree_leaves(self.found), tree_leaves(self.again()), strict=True):
            if isinstance(own, torch.Tensor):
                own.copy_(new)
        for own, parameter in zip(self.gradients, self.parameters, strict=True):
            own.copy_(parameter.grad)


@pytest.fixture
def without_a_gpu(monkeypatch):
    """Graphs are made again instead of replayed."""

    def capture(self, x, y):
        x, y = tree_map(lambda each: each.clone() if isinstance(each, torch.Tensor) else each, (x, y))
        found = tree_map(lambda each: each.clone() if isinstance(each, torch.Tensor) else each, self.step(x, y))
        gradients = [each.grad.clone() for each in self.parameters]
        graph = Rerun(self.step, x, y, found, self.parameters, gradients)
        inputs = [each for each in tree_leaves((x, y)) if isinstance(each, torch.Tensor)]
        return Captured(graph, inputs, found, gradients, self._places())

    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(Graphed, "_capture", capture)
    for module in ("cli.training", "training.loop"):
        monkeypatch.setattr(f"eqprop.{module}.check_capturable", lambda *_: None)


@pytest.fixture
def graphed(without_a_gpu):
    """A model, a step of it that also reads a number, and the same step captured."""

    def step(x, y):
        model.zero_grad()
        loss = y["factor"] * model.loss(x, y["labels"])
        loss.backward()
        return loss.detach()

    model = model_of("infinitesimal")
    return model, step, Graphed(step, model)


def test_a_captured_run_is_the_run(without_a_gpu, tmp_path, monkeypatch):
    """Its steps are counted and checked, and its last batch of another size is captured too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eqprop.training.loop.UNCHECKED", 7)
    options = ["--epochs", "2", "--train_images", "300", "--precision", "32", "--threads", "1", "--device", "cpu"]
    for graph in ("false", "true"):
        assert main(["train", "digits", *options, "--cuda_graph", graph, "--out", graph, "--report_seconds", "0"]) == 0
    rows = [list(csv.DictReader(Path(name, "metrics.csv").read_text().splitlines())) for name in ("false", "true")]
    assert len(rows[0]) == 2
    for eager, captured in zip(*rows, strict=True):
        for timed in ("seconds", "examples_per_second"):
            assert float(captured.pop(timed)) > 0
            del eager[timed]
        assert captured == eager


def test_a_captured_step_that_is_not_finite_changes_no_weight(without_a_gpu, tmp_path, monkeypatch, capsys):
    """It is told by its own number, though it is checked with those after it; the checkpoint is from before it."""
    monkeypatch.chdir(tmp_path)
    gradients_of, steps = Vitals.of, []

    def wild(loss, record, named):
        steps.append(1)
        found = gradients_of(loss, record, named)
        return found._replace(values=found.values * float("nan")) if len(steps) == 9 else found

    monkeypatch.setattr(Vitals, "of", wild)
    options = ["--epochs", "2", "--train_images", "640", "--batch_size", "32", "--validation", "0", "--device", "cpu"]
    assert main(["train", "digits", *options, "--cuda_graph", "true", "--out", "run"]) == 2
    assert "epoch 1, batch 8: the loss is nan" in capsys.readouterr().err  # the first step was made twice
    assert not list(Path("run").glob("last*"))


def test_what_is_no_tensor_in_a_batch_counts_as_its_shape_does(graphed):
    model, step, captured = graphed
    for factor, size, seed in ((1.0, 6, 0), (2.0, 6, 1), (1.0, 4, 2), (2.0, 6, 3), (1.0, 6, 4)):
        x, labels = batch(size, seed)
        y = {"factor": factor, "labels": labels}
        expected = step(x, y)
        right = gradients(model)
        assert captured(x, y).item() == pytest.approx(expected.item())
        for one, other in zip(gradients(model), right, strict=True):
            torch.testing.assert_close(one, other)
    assert len(captured.captured) == 3
    with pytest.raises(InputError, match="A batch with a object cannot be captured"):
        captured(x, {"factor": object(), "labels": labels})


def move(model):
    weight = next(model.parameters())
    weight.data = weight.data.clone()


def freeze(model):
    next(model.parameters()).requires_grad_(False)


@pytest.mark.parametrize("change", [move, freeze])
def test_a_parameter_that_moves_or_freezes_is_refused(graphed, change):
    model, _, captured = graphed
    x, labels = batch()
    captured(x, {"factor": 1.0, "labels": labels})
    with torch.no_grad():
        next(model.parameters()).add_(1)  # in place
    captured(x, {"factor": 1.0, "labels": labels})
    change(model)
    with pytest.raises(InputError, match="in place"):
        captured(x, {"factor": 1.0, "labels": labels})


@pytest.mark.parametrize("wild", [False, True])
def test_gradients_of_a_step_that_is_not_finite_are_held(wild):
    model, (x, y) = model_of("ep"), batch()
    record = Record()
    model(x, y, record=record).backward()
    before = gradients(model)
    loss = torch.tensor(float("nan") if wild else 1.0)
    Vitals.of(loss, record, model.named_parameters()).hold(model.parameters())
    for one, other in zip(gradients(model), before, strict=True):
        assert torch.equal(one, torch.zeros_like(one) if wild else other)


def test_the_command_refuses_it_without_a_gpu_before_it_makes_a_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--device", "cpu", "--cuda_graph", "true", "--out", "run"]) == 2
    told = capsys.readouterr()
    assert "--cuda_graph" in told.err + told.out
    assert not list(tmp_path.iterdir())


def test_steps_that_are_checked_together_name_the_first_that_is_not_finite(tmp_path):
    from lightning_fabric import Fabric

    from eqprop.recipes import RECIPES
    from eqprop.training.loop import Trainer
    from eqprop.training.report import Report

    trainer = Trainer(RECIPES["digits"](), tmp_path, Fabric(accelerator="cpu", devices=1), Report())
    x, y = trainer.train.sample(4)
    vitals = trainer._gradient(x, y)[-1]
    for index in range(4):
        values = vitals.values.clone()
        values[1 + index] = float("nan") if index > 1 else values[1 + index]
        trainer.unchecked.append((2, index, vitals._replace(values=values)))
    with pytest.raises(NotSettledError, match=r"epoch 3, batch 3: the loss is .* changed by nan"):
        trainer.save("last")
    assert not list(tmp_path.glob("last*"))


def test_batches_on_the_cpu_are_as_they_were():
    batches = [(torch.ones(1), torch.ones(2))]
    assert list(ahead(batches, torch.device("cpu"))) == batches


# -- on a GPU --


@gpu
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_gpu_finds_the_gradients_of_the_cpu(name):
    found = []
    for device in ("cpu", "cuda"):
        model, (x, y) = model_of(name).double().to(device), batch()
        stepping(model)(x.double().to(device), y.to(device))
        found.append(gradients(model))
    for cpu, cuda in zip(*found, strict=True):
        # The penalty is a quotient of small changes.
        assert float((cpu - cuda).norm() / cpu.norm()) < (1e-6 if name == "fast" else 1e-9)


@gpu
@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_replayed_step_is_the_step(name, bits):
    model = model_of(name).cuda()
    twin = copy.deepcopy(model)
    step, graphed = stepping(twin, bits), Graphed(stepping(model, bits), model)
    for seed, size in enumerate((6, 6, 4, 6, 4)):
        x, y = (each.cuda() for each in batch(size, seed))
        expected, found = step(x, y), graphed(x, y)
        assert float((expected[0] - found[0]).abs()) < 1e-5
        for one, other in zip(gradients(twin), gradients(model), strict=True):
            limit = 5e-2 if bits else 1e-3
            assert float((one - other).norm()) <= limit * float(one.norm()) + 1e-7, (name, seed)
        with torch.no_grad():
            for parameters in (model.parameters(), twin.parameters()):
                for parameter in parameters:
                    parameter *= 0.99
    assert len(graphed.captured) == 2


@gpu
def test_a_step_that_waits_cannot_be_captured():
    model = model_of("ep").cuda()
    graphed = Graphed(lambda x, y: float(stepping(model)(x, y)[0]), model)
    with pytest.raises(InputError, match="cannot be captured"):
        graphed(*(each.cuda() for each in batch()))


@gpu
@pytest.mark.parametrize("graph", [False, True])
def test_a_gpu_learns_the_digits_and_resumes(graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--device", "cuda", "--cuda_graph", str(graph).lower(), "--free_sweeps", "20"]
    assert main(["train", "digits", "--epochs", "4", "--out", "run", *options]) == 0
    about = json.loads(Path("run/run.json").read_text())
    assert about["session"]["cuda_graph"] is graph
    rows = Path("run/metrics.csv").read_text().splitlines()
    best = dict(zip(rows[0].split(","), map(float, rows[-1].split(",")), strict=True))
    assert best["validation_accuracy"] > 0.85
    assert main(["resume", "run", "--epochs", "5"]) == 0
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
def test_a_run_that_is_not_finite_is_told(device, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = """
from eqprop.recipes import RECIPES

def wild(epochs: int = 2):
    run = RECIPES["digits"](epochs=epochs)
    run.optimizer.param_groups[0]["lr"] = float("inf")
    return run
"""
    Path("mine.py").write_text(recipe)
    assert main(["train", "mine.py:wild", "--device", device, "--out", "run"]) == 2
    assert "epoch 1, batch 2" in capsys.readouterr().err
