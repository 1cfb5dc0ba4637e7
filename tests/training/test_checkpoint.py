"""A checkpoint comes back bit for bit, or says what is wrong with it; a crash never costs the one before."""

import json
import os

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.optim import lr_scheduler

from eqprop import files
from eqprop.errors import InputError
from eqprop.files import load, save, sealed, write_text_atomic
from eqprop.training import checkpoint
from eqprop.training.checkpoint import flatten_optimizer, restore_optimizer, restore_rng, rng_tensors


class Killed(BaseException):
    """The process ends here."""


def stored(folder):
    return sorted(path.name for path in folder.iterdir())


# Round trips

TENSORS = st.sampled_from(
    [
        torch.arange(6.0),
        torch.tensor(3, dtype=torch.int64),
        torch.randn(3, 4).t(),
        torch.tensor([float("nan"), float("-inf"), -0.0]),
        torch.zeros(0, 2),
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.ones(1).expand(5),
        torch.tensor([True, False]),
        torch.randn(4).bfloat16(),
        torch.nn.Parameter(torch.randn(2)),
    ]
)
STATES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def same_bits(one, other):
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(
            one.detach().contiguous().flatten().view(torch.uint8),
            other.detach().contiguous().flatten().view(torch.uint8),
        )
    )


@given(
    tensors=st.dictionaries(st.text("abc.", min_size=1), TENSORS, max_size=4),
    state=st.dictionaries(st.text(max_size=5), STATES, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_what_was_saved_comes_back(tmp_path_factory, tensors, state):
    folder = tmp_path_factory.mktemp("run")
    save(folder, "last", tensors, state)
    loaded, read = load(folder, "last")
    assert loaded.keys() == tensors.keys()
    assert all(same_bits(loaded[key], tensors[key]) for key in tensors)
    assert read == state


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        save(tmp_path / "gone", "last", {}, {})
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("change", [("1", "2"), ("step", "stop"), ("format", "formal")])
def test_a_changed_record(saved, change):
    text = (saved / "last.json").read_text()
    assert change[0] in text
    (saved / "last.json").write_text(text.replace(*change, 1))
    assert "last.json" in said(saved)


def test_a_pipe_in_the_place_of_a_file(saved):
    (file,) = saved.glob("*.safetensors")
    for path in (file, saved / "last.json"):
        path.unlink()
        os.mkfifo(path)
        assert path.name in said(saved)


def test_tensors_that_share_memory(tmp_path):
    tied = torch.randn(4, 4)
    save(tmp_path, "last", {"a": tied, "b": tied, "c": tied.t(), "d": tied[1]}, {})
    loaded, _ = load(tmp_path, "last")
    assert torch.equal(loaded["a"], loaded["b"])
    assert torch.equal(loaded["c"], tied.t())
    assert torch.equal(loaded["d"], tied[1])


def test_the_second_save_takes_the_place_of_the_first_and_of_no_other(tmp_path):
    for name in ("last", "last-best", "last.old"):
        save(tmp_path, name, {"w": torch.zeros(2)}, {"name": name})
    save(tmp_path, "last", {"w": torch.ones(2)}, {"name": "newer"})
    assert len(stored(tmp_path)) == 6, "two files a checkpoint"
    assert load(tmp_path, "last")[1] == {"name": "newer"}
    assert load(tmp_path, "last-best")[1] == {"name": "last-best"}
    assert load(tmp_path, "last.old")[1] == {"name": "last.old"}


# Crashes


def interrupted(calls, which):
    """A stand-in for an ``os`` function that ends the process at the call number ``which``."""
    real = getattr(os, calls)
    left = [which]

    def function(*args):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return real(*args)

    return function


@pytest.mark.parametrize(("calls", "which"), [("replace", 0), ("replace", 1), *(("fsync", i) for i in range(4))])
def test_a_kill_leaves_the_old_or_the_new_checkpoint(tmp_path, monkeypatch, calls, which):
    save(tmp_path, "last", {"w": torch.zeros(3)}, {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, calls, interrupted(calls, which))
        with pytest.raises(Killed):
            save(tmp_path, "last", {"w": torch.ones(3)}, {"step": 2})
    committed = (calls, which) == ("fsync", 3)  # of the folder, after the last replacement
    tensors, state = load(tmp_path, "last")
    assert state == {"step": 2 if committed else 1}
    assert torch.equal(tensors["w"], torch.full((3,), float(committed)))
    save(tmp_path, "last", {"w": torch.ones(3)}, {"step": 3})
    assert len(stored(tmp_path)) == 2, "what the kill left is gone"


def test_the_files_of_a_process_that_could_not_clean_up_are_removed(tmp_path):
    leftovers = [
        f"last-{'0' * 16}.safetensors",
        f".last-{'0' * 16}.safetensors.01234567.tmp",
        ".last.json.01234567.tmp",
    ]
    others = ["last-best.safetensors", ".lastly.json.01234567.tmp", "last.csv"]
    for name in leftovers + others:
        (tmp_path / name).write_text("")
    save(tmp_path, "last", {}, {})
    assert set(others) < set(stored(tmp_path))
    assert not set(leftovers) & set(stored(tmp_path))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        save(tmp_path / "file", "last", {}, {})


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise files.SafetensorError("No space left on device")

    save(tmp_path, "last", {}, {"step": 1})
    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(InputError, match="No space left"):
        save(tmp_path, "last", {}, {"step": 2})
    assert load(tmp_path, "last")[1] == {"step": 1}


@pytest.mark.parametrize("state", [{"a": torch.zeros(1)}, {"a": {1, 2}}, {"a": object()}])
def test_a_state_that_is_not_json(tmp_path, state):
    with pytest.raises(InputError, match="not JSON"):
        save(tmp_path, "last", {}, state)
    assert not stored(tmp_path)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_a_name_that_is_no_file_name(tmp_path, name):
    with pytest.raises(InputError, match="name"):
        save(tmp_path, name, {}, {})
    with pytest.raises(InputError, match="name"):
        load(tmp_path, name)


def test_text_is_replaced_as_it_is(tmp_path):
    for text in ["a,b\r\n1,2\n", "é"]:
        write_text_atomic(tmp_path / "log.csv", text)
        assert (tmp_path / "log.csv").read_bytes() == text.encode()
    assert stored(tmp_path) == ["log.csv"]


# Damage


@pytest.fixture
def saved(tmp_path):
    save(tmp_path, "last", {"w": torch.randn(50)}, {"step": 1})
    return tmp_path


def said(folder, name="last"):
    with pytest.raises(InputError) as caught:
        load(folder, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_or_checkpoint(saved):
    assert str(saved / "no" / "last.json") in said(saved / "no")
    assert "first.json" in said(saved, "first")
    assert "last.json" in said(saved / "last.json")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"format": "x"}', '{"format": 1}', '{"format": 1, "state": {}}', "\0\xff"]
    + [sealed({"format": 2, "state": {}, "tensors": about}) for about in (3, {}, {"file": "../x", "bytes": 1})],
)
def test_a_damaged_record(saved, text):
    (saved / "last.json").write_text(text, encoding="latin-1")
    assert "last.json" in said(saved)
    assert "damaged" in said(saved)


def test_a_newer_format(saved):
    record = json.loads((saved / "last.json").read_text())
    (saved / "last.json").write_text(json.dumps({"format": 3, "content": record["state"]}))
    assert "upgrade" in said(saved)


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b[:-1] + bytes([b[-1] ^ 1]),
        lambda b: b"",
        lambda b: b"\xff" * len(b),
        None,
    ],
)
def test_a_damaged_or_missing_tensor_file(saved, damage):
    (file,) = saved.glob("*.safetensors")
    if damage:
        file.write_bytes(damage(file.read_bytes()))
    else:
        file.unlink()
    assert str(file) in said(saved)


# Optimisers

OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.99), amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=2, history_size=3),
}


def weights():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(3, 4), (4,), (2,)]]


def steps(optimiser, parameters, count):
    def loss():
        optimiser.zero_grad()
        # The last parameter gets no gradient: an optimiser keeps nothing for it.
        value = sum((p**4 + p).sum() for p in parameters[:-1])
        value.backward()
        return value

    for _ in range(count):
        optimiser.step(loss)


@pytest.mark.parametrize("kind", OPTIMISERS)
@pytest.mark.parametrize("taken", [0, 3])
def test_an_optimiser_goes_on_as_if_never_stopped(tmp_path, kind, taken):
    kept = weights()
    optimiser = OPTIMISERS[kind](kept)
    steps(optimiser, kept, taken)
    tensors, state = flatten_optimizer(optimiser)
    save(tmp_path, "last", tensors | {f"w{i}": p for i, p in enumerate(kept)}, {"optimiser": state})
    loaded, read = load(tmp_path, "last")
    resumed = [torch.nn.Parameter(loaded[f"w{i}"]) for i in range(len(kept))]
    other = OPTIMISERS[kind](resumed)
    restore_optimizer(other, loaded, read["optimiser"])

    before, after = optimiser.state_dict()["param_groups"], other.state_dict()["param_groups"]
    assert before == after
    assert [type(v) for group in before for v in group.values()] == [type(v) for group in after for v in group.values()]
    steps(optimiser, kept, 3)
    steps(other, resumed, 3)
    assert all(same_bits(one, two) for one, two in zip(kept, resumed, strict=True))


def test_buffers_that_are_none_and_several_groups(tmp_path):
    one, two, _ = weights()
    groups = [{"params": [one], "lr": 0.5}, {"params": [two], "momentum": 0.0, "name": "plain"}]
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    optimiser.state[two]["momentum_buffer"] = None
    tensors, state = flatten_optimizer(optimiser)
    other = torch.optim.SGD([{"params": [one]}, {"params": [two]}], lr=9.0)
    restore_optimizer(other, tensors, json.loads(json.dumps(state)))
    assert other.state_dict() == optimiser.state_dict()


def test_an_optimiser_that_does_not_fit():
    parameters = weights()
    adam = OPTIMISERS["adam"](parameters)
    steps(adam, parameters, 1)
    tensors, state = flatten_optimizer(adam)
    for other, held, held_state in [
        (OPTIMISERS["momentum"](parameters), tensors, state),
        (OPTIMISERS["adam"](parameters[:2]), tensors, state),
        (OPTIMISERS["adam"](parameters), {}, state),
        (OPTIMISERS["adam"](parameters), tensors, {}),
    ]:
        with pytest.raises(InputError, match="does not fit"):
            restore_optimizer(other, held, held_state)


def test_an_optimiser_with_code_in_its_state():
    optimiser = OPTIMISERS["sgd"](weights())
    optimiser.param_groups[0]["schedule"] = lambda step: step
    with pytest.raises(InputError, match="schedule"):
        flatten_optimizer(optimiser)


# Random generators


def test_the_global_generator_goes_on(tmp_path):
    save(tmp_path, "last", rng_tensors(torch.device("cpu")), {})
    drawn = torch.rand(5)
    restore_rng(load(tmp_path, "last")[0], torch.device("cpu"))
    assert torch.equal(torch.rand(5), drawn)


@pytest.mark.parametrize(
    "tensors",
    [{}, {"rng.cpu": torch.zeros(3, dtype=torch.uint8)}, {"rng.cpu": torch.zeros(3)}],
)
def test_no_state_of_the_generators(tensors):
    with pytest.raises(InputError, match="random generators"):
        restore_rng(tensors, torch.device("cpu"))


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 4], 0.1),
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=9),
        lambda optimizer: lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.ConstantLR(optimizer), lr_scheduler.MultiStepLR(optimizer, [2])], [3]
        ),
    ],
    ids=["milestones", "one cycle", "one after another"],
)
def test_a_schedule_goes_on_after_json(schedule):
    """The milestones of a schedule are keys, which JSON alone would make texts."""

    def made():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
        return optimizer, schedule(optimizer)

    def rates(optimizer, scheduler, count):
        found = []
        for _ in range(count):
            optimizer.step()
            scheduler.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    whole = rates(*made(), 7)
    optimizer, scheduler = made()
    rates(optimizer, scheduler, 3)
    tensors, state = {}, {}
    state["scheduler"] = checkpoint.flatten(scheduler.state_dict(), tensors)
    kept, about = checkpoint.flatten_optimizer(optimizer)
    again, later = made()
    checkpoint.restore_optimizer(again, kept, json.loads(json.dumps(about)))
    checkpoint.restore_scheduler(later, tensors, json.loads(json.dumps(state))["scheduler"])
    assert rates(again, later, 4) == whole[3:]
