"""A trained model as files: the same bits anywhere; a stranger's files execute nothing and are refused in one line."""

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import eqprop as ep
from eqprop import files, loading
from eqprop.models import standardise_weights
from eqprop.pretrained import Pretrained, predict_files
from eqprop.tasks import Classes, Inputs, Outputs, Values
from runs.kills import environment, shared_starter

sys.path.insert(0, str(Path(__file__).parent / "energy"))
from test_spec import tied
from test_spec_of_estimators import mutated


@dataclass(frozen=True)
class Lines(Inputs):
    """Numbers in lines of text, one example a line."""

    scale: float

    def read(self, path: Path) -> Iterator[tuple[str, Any]]:
        for i, line in enumerate(path.read_text().splitlines()):
            yield f"{path.name}:{i}", line

    def prepare(self, raw: Sequence[Any]) -> Any:
        return torch.tensor([[float(each) for each in line.split()] for line in raw]) * self.scale


def network(loss=ep.SquaredError):
    torch.manual_seed(0)
    layers = [ep.ConvLayer(3, pool=ep.MaxPool(2)), ep.ConvLayer(4, pool=ep.MaxPool(2)), ep.DenseLayer(3, ep.sigmoid)]
    return ep.chain((1, 8, 8), layers, loss).to(memory_format=torch.channels_last)


def estimator():
    return ep.EquilibriumPropagation(ep.symmetric(0.5), ep.FixedSweeps(20), ep.FixedSweeps(5))


def model(inputs=None, loss=ep.SquaredError):
    return Pretrained(ep.Equilibrium(network(loss), estimator(), "ignore"), inputs, Classes(("a", "b", "c")))


@pytest.fixture
def saved(tmp_path):
    model().save_into(tmp_path)
    return tmp_path


X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))
FRESH = """
import sys, torch, eqprop
model = eqprop.{load}
assert not model.training
torch.save((model.predict(torch.load(sys.argv[1])), model(torch.load(sys.argv[1]))), sys.argv[2])
"""
LIGHT = """
assert not {"datasets", "lightning_fabric", "matplotlib", "tensorboard"} & set(sys.modules), "heavy imports"
"""


def fresh(tmp_path, load, forked=False):
    """Answers and scores in another process, without a network; ``forked``: of one that has imported everything."""
    torch.save(X, tmp_path / "x.pt")
    code, paths, more = FRESH.format(load=load), (tmp_path / "x.pt", tmp_path / "y.pt"), {"HF_HUB_OFFLINE": "1"}
    if forked:
        done = shared_starter().done_code(code, *paths, env=environment(**more))
        assert done.returncode == 0, done.stderr
    else:
        subprocess.run([sys.executable, "-c", code + LIGHT, *paths], check=True, env=os.environ | more)
    return torch.load(tmp_path / "y.pt")


@pytest.mark.parametrize("loss", [ep.SquaredError, ep.CrossEntropy, ep.BinaryCrossEntropy])
def test_a_fresh_process_predicts_the_same_bits(tmp_path, loss):
    trained = model(loss=loss)
    optimizer = torch.optim.SGD(trained.model.parameters(), 0.5)
    trained.model.loss(X, torch.arange(7) % 3).backward()
    optimizer.step()
    trained.save_pretrained(tmp_path / "saved")
    load = f"Pretrained.from_pretrained({str(tmp_path / 'saved')!r})"
    answers, scores = fresh(tmp_path, load, forked=loss is not ep.SquaredError)
    assert answers == trained.predict(X)
    assert torch.equal(scores, trained(X))
    assert torch.equal(scores, trained.model.network.scores(trained.model.settle(X).state))


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "{} [b] {x} é*"
    model().save_into(folder)
    assert Pretrained.from_pretrained(folder).predict(X) == model().predict(X)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ep.InputError, match="describes no model"):
        Pretrained.from_pretrained(folder)


def test_the_folder_has_the_layout_of_the_hub(tmp_path):
    model().save_pretrained(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["classes"] == ["a", "b", "c"]
    assert config["version"] == ep.__version__
    assert config["weights"]["sha256"] == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    card = (tmp_path / "README.md").read_text()
    assert "library_name: eqprop" in card
    assert "- equilibrium-propagation" in card
    assert Pretrained.from_pretrained(str(tmp_path)).outputs == Classes(("a", "b", "c"))


def test_it_is_pushed_as_the_mixin_does(tmp_path, monkeypatch):
    pushed = {}
    api = type("Api", (), {
        "__init__": lambda self, token=None: None,
        "create_repo": lambda self, repo_id, **options: type("Repo", (), {"repo_id": repo_id}),
        "upload_folder": lambda self, folder_path, **options: pushed.update(
            {each.name: each.read_bytes() for each in Path(folder_path).iterdir()}
        ),
    })  # fmt: skip
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", api)
    model().push_to_hub("someone/digits")
    assert set(pushed) == {"README.md", "config.json", "model.safetensors"}


def weight_normed(network):
    for each in network.terms.values():
        if isinstance(each, ep.Synapse):
            torch.nn.utils.parametrizations.weight_norm(each.map)


def test_memory_format_precision_and_frozen_weights_come_back(saved):
    trained = model()
    trained.to(torch.float64)
    first = next(trained.model.parameters())
    first.requires_grad_(False)
    trained.save_into(saved)
    twin = Pretrained.from_pretrained(saved)
    for one, other in zip(trained.model.parameters(), twin.model.parameters(), strict=True):
        assert one.stride() == other.stride()
        assert one.dtype == other.dtype == torch.float64
        assert one.requires_grad == other.requires_grad
        assert torch.equal(one, other)
        assert other.data_ptr() % 64 == 0
    assert twin.predict(X) == trained.predict(X)
    twin.model.loss(X.double(), torch.arange(7) % 3).backward()


@pytest.mark.parametrize("compute", [standardise_weights, weight_normed], ids=lambda f: f.__name__)
def test_weights_that_are_computed_are_stored_as_their_values(tmp_path, compute):
    trained = model()
    compute(trained.model.network)
    names = [name for name, _ in trained.named_parameters()]
    trained.save_into(tmp_path)
    twin = Pretrained.from_pretrained(tmp_path)
    assert [name for name, _ in trained.named_parameters()] == names, "saving must not change the model"
    assert twin.predict(X) == trained.predict(X)
    assert all(each.requires_grad for each in twin.parameters())
    assert not any("original" in name for name, _ in twin.named_parameters())


def test_shared_weights_are_stored_once(tmp_path):
    trained = Pretrained(ep.Equilibrium(tied(), estimator(), "ignore"))
    trained.save_into(tmp_path)
    assert len(safetensors.torch.load_file(tmp_path / "model.safetensors")) == len(list(trained.model.parameters()))
    twin = Pretrained.from_pretrained(tmp_path)
    assert twin.predict(torch.ones(2, 4)) == trained.predict(torch.ones(2, 4))
    assert len(list(twin.model.parameters())) == len(list(trained.model.parameters()))


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Pretrained.from_pretrained(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_predict_leaves_the_mode_and_needs_no_batch_of_a_size(saved):
    twin = Pretrained.from_pretrained(saved).train()
    many = X.repeat(60, 1, 1, 1)
    answers = twin.predict(many)
    assert twin.training
    assert len(answers) == 420
    assert [name for name, _ in answers] == [name for name, _ in twin.predict(X)] * 60
    assert twin.predict([]) == []
    assert all(0 <= probability <= 1 for _, probability in answers)
    assert twin.predict(many.double().numpy())[:200] == answers[:200]


def test_answers_are_the_scores_or_values(tmp_path):
    plain = Pretrained(model().model)
    assert torch.equal(torch.tensor(plain.predict(X)), plain(X))
    values = Pretrained(model().model, None, Values(("u", "v", "w"), (1.0, 2.0, 3.0), (10.0, 1.0, 1.0)))
    values.save_into(tmp_path)
    found = torch.tensor(Pretrained.from_pretrained(tmp_path).predict(X), dtype=torch.float64)
    assert torch.allclose(found, plain(X).double() * torch.tensor([10.0, 1, 1]) + torch.tensor([1.0, 2, 3]))


def test_scores_that_a_loss_reads_out_have_a_name_each():
    read = network(lambda node, shape: ep.ReadoutCrossEntropy(node, shape, classes=5))
    bare = Pretrained(ep.Equilibrium(read, estimator(), "ignore"))
    assert len(bare.header) == len(bare.predict(X)[0]) == 5


def test_the_class_of_an_answer_is_the_largest_score():
    for loss in (ep.SquaredError, ep.CrossEntropy, ep.BinaryCrossEntropy):
        trained = model(loss=loss)
        assert [name for name, _ in trained.predict(X)] == ["abc"[i] for i in trained(X).flatten(1).argmax(1).tolist()]


def lines(tmp_path):
    layers = [ep.DenseLayer(4, ep.tanh), ep.DenseLayer(3, ep.identity)]
    torch.manual_seed(0)
    made = ep.Equilibrium(ep.chain((2,), layers, ep.CrossEntropy), estimator(), "ignore")
    Pretrained(made, Lines(0.5), Classes(("a", "b", "c"))).save_into(tmp_path)
    return Pretrained.from_pretrained(tmp_path, allow=[Lines])


def test_files_are_predicted_in_rows(tmp_path):
    twin = lines(tmp_path / "model")
    texts = [[f"{i} {j}" for j in range(150)] for i in range(3)]
    paths = [tmp_path / f"{i}.txt" for i in range(3)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text("\n".join(text))
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        predict_files(twin, paths, csv.writer(file).writerow)
    rows = list(csv.reader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == [f"{i}.txt:{j}" for i in range(3) for j in range(150)]
    expected = twin.predict([line for text in texts for line in text])
    assert [(name, float(value)) for _, name, value in rows] == expected
    with pytest.raises(ep.InputError, match="reads no files"):
        predict_files(model(), paths, print)


def test_a_users_class_needs_permission(tmp_path):
    lines(tmp_path)
    with pytest.raises(ep.InputError, match=r"Lines.*allow"):
        Pretrained.from_pretrained(tmp_path)


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    hidden = model()
    hidden.model.estimator = ep.EquilibriumPropagation(
        ep.symmetric(0.5), ep.FixedSweeps(5), ep.FixedSweeps(5), lambda phases, parameters: ()
    )
    with pytest.raises(ep.InputError, match=r"'rule'.*lambda"):
        hidden.save_into(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ep.InputError, match=r"Cannot write the model"):
        model().save_into(tmp_path / "file" / "saved")
    with pytest.raises(ep.InputError, match="Pretrained: model must be Equilibrium"):
        Pretrained(network())


# -- runs --


def test_a_run_is_loaded(saved):
    trained = model()
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.mul_(0.5)
    tensors = {f"model.{name}": value for name, value in trained.model.state_dict().items()}
    files.save(saved, "last", {**tensors, "rng.cpu": torch.get_rng_state()}, {})
    assert ep.load(saved).predict(X) == model().predict(X)
    last = ep.load(str(saved), "last")
    assert last.predict(X) == trained.predict(X) != model().predict(X)
    assert [p.stride() for p in last.model.parameters()] == [p.stride() for p in trained.model.parameters()]
    with pytest.raises(ep.InputError, match="no checkpoint"):
        ep.load(saved, "other")
    with pytest.raises(ep.InputError, match="no model"):
        ep.load(saved / "nowhere")


@pytest.mark.parametrize("step", range(5))
def test_a_kill_between_the_files_leaves_one_whole_model(saved, step, monkeypatch):
    """Whichever file was the last to be replaced, the old model is read or the new one."""
    old, new = model(), model()
    with torch.no_grad():
        for parameter in new.model.parameters():
            parameter.mul_(0.5)
    real, count = os.replace, iter(range(9))

    def replace(source, place):
        if next(count) == step:
            raise KeyboardInterrupt
        real(source, place)

    monkeypatch.setattr(os, "replace", replace)
    try:
        new.save_into(saved)
        ended = True
    except KeyboardInterrupt:
        ended = False
    monkeypatch.undo()
    assert ended is (step > 2)
    found = Pretrained.from_pretrained(saved).predict(X)
    assert found == (old if step < 2 else new).predict(X)
    for left in (".config.json.0123abcd.tmp", "..model.safetensors.0123abcd.4567cdef.tmp"):  # of a SIGKILL
        (saved / left).touch()
    old.save_into(saved)
    assert Pretrained.from_pretrained(saved).predict(X) == old.predict(X)
    assert sorted(each.name for each in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_a_reader_beside_a_writer_finds_a_whole_model(saved):
    writer = """
import sys; sys.path.insert(0, sys.argv[2])
from test_pretrained import model
import torch
trained = model()
for i in range(60):
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.fill_(i / 100)
    trained.save_into(sys.argv[1])
"""
    start = torch.cat([parameter.detach().flatten() for parameter in model().model.parameters()])
    reads = 0
    with shared_starter().begin_code(writer, saved, Path(__file__).parent) as process:
        while process.poll() is None or not reads:
            twin = Pretrained.from_pretrained(saved)
            reads += 1
            values = torch.cat([parameter.detach().flatten() for parameter in twin.model.parameters()])
            assert bool((values == values[0]).all()) or torch.equal(values, start)
        assert process.returncode == 0, process.stderr


# -- strangers --


def rewritten(folder, change):
    """The config, changed; with weights that fit its sum."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_damaged_weights_are_refused(saved):
    file = saved / "model.safetensors"
    whole = file.read_bytes()
    for data in (b"", whole[:-1], whole + b"0", whole[:200] + b"\0" + whole[201:], whole[::-1]):
        file.write_bytes(data)
        with pytest.raises(ep.InputError, match="weights"):
            Pretrained.from_pretrained(saved)
    file.unlink()
    with pytest.raises(ep.InputError, match="weights"):
        Pretrained.from_pretrained(saved)


def signed(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    rewritten(folder, lambda c: c["weights"].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))


def test_weights_of_another_network_are_refused(saved):
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    name, first = next(iter(tensors.items()))
    for others in (
        {**tensors, name: first[:1]},
        {**tensors, name: first.long()},
        {**tensors, "more": first.clone()},
        {each: tensor for each, tensor in tensors.items() if each != name},
        {},
    ):
        signed(saved, safetensors.torch.save({each: tensor.contiguous() for each, tensor in others.items()}))
        with pytest.raises(ep.InputError, match=r"do not fit"):
            Pretrained.from_pretrained(saved)
    for data in (b"abc", b"\xff" * 100, (2**40).to_bytes(8, "little") + b"{" * 100):
        signed(saved, data)
        with pytest.raises(ep.InputError, match="damaged"):
            Pretrained.from_pretrained(saved)


def test_enormous_sizes_need_no_memory(tmp_path):
    made = ep.Equilibrium(ep.chain((6,), [ep.DenseLayer(5), ep.DenseLayer(4)], ep.SquaredError), estimator())
    Pretrained(made).save_into(tmp_path)
    text = (tmp_path / "config.json").read_text()
    for size in (6, 5, 4):
        for huge in (10**12, 10**7, 2**62, 2**70, -1, 0):
            changed = json.dumps(replaced(json.loads(text), size, huge))
            (tmp_path / "config.json").write_text(changed)
            start = time.monotonic()
            with pytest.raises(ep.InputError):
                Pretrained.from_pretrained(tmp_path)
            assert time.monotonic() - start < 5


def replaced(value, old, new):
    match value:
        case dict():
            return {key: replaced(each, old, new) for key, each in value.items()}
        case list():
            return [replaced(each, old, new) for each in value]
    return new if value == old and type(value) is int else value


TEXTS = [
    *("", "{", "[]", "3", "null", "NaN", "{}", "\x00"), '{"format": 1}', "[" * 100_000, '{"a":' * 50_000, "1" * 5000,
    '{"format": 1e400}', '{"format": 2, "library": "eqprop"}', '{"format": 1, "library": "other"}', '"\\ud800"',
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(TEXTS)))
def test_a_config_that_is_none_is_refused(saved, i):
    (saved / "config.json").write_text(TEXTS[i])
    with pytest.raises(ep.InputError, match=r"config\.json") as caught:
        Pretrained.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_other_kinds_of_files_are_refused(saved, tmp_path):
    (saved / "config.json").write_bytes(b"\xff\xfe")
    for name in ("config.json", "model.safetensors"):
        for make in (
            os.mkfifo,
            os.mkdir,
            lambda path: os.symlink("nowhere", path),
            lambda path: os.symlink(path, path),
        ):
            model().save_into(saved)
            (saved / name).unlink()
            make(saved / name)
            with pytest.raises(ep.InputError):
                Pretrained.from_pretrained(saved)
            (saved / name).rmdir() if (saved / name).is_dir() else (saved / name).unlink()
    model().save_into(saved)
    with (saved / "config.json").open("a") as file:
        file.write(" " * 2**24)
    with pytest.raises(ep.InputError, match="larger"):
        Pretrained.from_pretrained(saved)


def test_nothing_that_is_named_is_executed(saved):
    spec = {"class": "os:system", "arguments": {"command": f"touch {saved}/executed"}}
    for key in ("estimator", "inputs", "outputs", "network"):
        model().save_into(saved)
        rewritten(saved, lambda config, key=key: config.update({key: spec | {"shared": {}, "frozen": []}}))
        with pytest.raises(ep.InputError):
            Pretrained.from_pretrained(saved)
    assert not (saved / "executed").exists()
    for key, wrong in (("inputs", "outputs"), ("outputs", "estimator"), ("estimator", "outputs")):
        model().save_into(saved)
        rewritten(saved, lambda config, key=key, wrong=wrong: config.update({key: config[wrong]}))
        with pytest.raises(ep.InputError):
            Pretrained.from_pretrained(saved)


@pytest.mark.parametrize("seed", range(200))
def test_a_mutated_config_is_refused_in_one_line_or_works(saved, seed):
    config = mutated(json.loads((saved / "config.json").read_text()), seed)
    (saved / "config.json").write_text(json.dumps(config))
    text = refused(lambda: Pretrained.from_pretrained(saved).predict(X[:2]))
    assert "\n" not in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    "strides", [[1, 1, 1, 1], [-1, 1, 1, 1], [9, 9, 3], "abc", 3, {}, [2**62, 1, 1, 1], [9, 9, 3, 1.0]], ids=range(8)
)
def test_strides_that_do_not_fit_are_refused(saved, strides):
    name = next(iter(json.loads((saved / "config.json").read_text())["weights"]["strides"]))
    rewritten(saved, lambda config: config["weights"]["strides"].update({name: strides}))
    with pytest.raises(ep.InputError, match="strides"):
        Pretrained.from_pretrained(saved)


def refused(act):
    try:
        act()
    except ep.InputError as error:
        return str(error)
    return ""


def test_no_such_model(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("someone/nothing", str(tmp_path / "nowhere"), "a b/c", "x" * 300, "someone/" + "x" * 5000, "", "\0"):
        text = refused(lambda name=name: Pretrained.from_pretrained(name, cache_dir=tmp_path))
        assert text, name
        assert "\n" not in text


def test_public_names():
    assert ep.Pretrained is Pretrained
    assert ep.load is loading.load
    with pytest.raises(AttributeError, match="nothing"):
        ep.nothing  # noqa: B018
    assert issubclass(Classes, Outputs)
