"""Sequences and arrays in files: the same numbers from every kind of file, and nothing else than numbers."""

import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

import eqprop as ep
from eqprop.tasks.formats import Classes, Values
from eqprop.tasks.sequences import ArrayInputs, load_sequences

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, (6, 4, 2))
LABELS = np.array([3, 1, 3, 1, 7, 7])
NUMBERS = np.array([0.5, 1.5, 2.5, 0.25, 1.0, 3.0])
LENGTHS = np.array([4, 2, 3, 1, 4, 2])


def npz(path, **arrays):
    np.savez(path.with_suffix(".npz"), **arrays)


def safetensors(path, **arrays):
    save_file({name: np.ascontiguousarray(each) for name, each in arrays.items()}, path.with_suffix(".safetensors"))


def parquet(path, inputs, target, lengths=None):
    sizes = [len(each) for each in inputs] if lengths is None else lengths
    rows = [each[:size].tolist() for each, size in zip(inputs, sizes, strict=True)]
    pq.write_table(pa.table({"inputs": rows, "target": target.tolist()}), path.with_suffix(".parquet"))


def sets(folder, write=npz, target=LABELS, x=X, **more):
    folder.mkdir(exist_ok=True)
    write(folder / "train", inputs=x, target=target, **more)
    write(folder / "test", inputs=x[:3], target=target[:3], **{name: each[:3] for name, each in more.items()})
    return folder


@pytest.mark.parametrize("write", [npz, safetensors, parquet])
def test_classes_and_standardised_features_of_every_kind_of_file(tmp_path, write):
    loaded = load_sequences(sets(tmp_path / "d", write))
    assert loaded.outputs == Classes(("1", "3", "7"))
    assert loaded.train.target.tolist() == [1, 0, 1, 0, 2, 2]
    expected = (X - X.mean((0, 1))) / X.std((0, 1))
    assert np.allclose(loaded.train.inputs, expected, atol=1e-6)
    assert torch.equal(loaded.test.inputs, loaded.train.inputs[:3])
    assert loaded.manifest.form == "4 steps of 2 features"
    assert loaded.manifest.fingerprints == load_sequences(sets(tmp_path / "e", npz)).manifest.fingerprints
    raw = load_sequences(tmp_path / "d", standardise=False)
    assert np.allclose(raw.train.inputs, X)


@pytest.mark.parametrize("write", [npz, safetensors, parquet])
def test_unequal_lengths_have_zeros_at_the_end(tmp_path, write):
    loaded = load_sequences(sets(tmp_path / "d", write, NUMBERS, lengths=LENGTHS))
    steps = np.concatenate([each[:length] for each, length in zip(X, LENGTHS, strict=True)])
    mean, std = steps.mean(0), steps.std(0)
    for row, length in enumerate(LENGTHS):
        assert np.allclose(loaded.train.inputs[row, :length], (X[row, :length] - mean) / std, atol=1e-6)
        assert not loaded.train.inputs[row, length:].any()
    assert loaded.manifest.notes == ("sequences of 1 to 4 steps have zeros at the end",)
    assert isinstance(loaded.outputs, Values)
    answers = loaded.outputs.answers(loaded.train.target, None)
    assert [value for (value,) in answers] == pytest.approx(NUMBERS.tolist())


def test_several_targets_and_one_file(tmp_path):
    npz(tmp_path / "one", inputs=X, target=np.stack([NUMBERS, NUMBERS**2], 1))
    loaded = load_sequences(tmp_path / "one.npz", test=0.34, seed=3)
    assert (len(loaded.train), len(loaded.test)) == (4, 2)
    assert loaded.outputs.header == ("target1", "target2")
    again = load_sequences(tmp_path / "one.npz", test=0.34, seed=3)
    assert loaded.manifest.fingerprints == again.manifest.fingerprints


def test_texts_are_classes(tmp_path):
    names = np.array(["b", "a", "b", "a", "c", "c"])
    assert load_sequences(sets(tmp_path / "d", target=names)).outputs == Classes(("a", "b", "c"))
    assert load_sequences(sets(tmp_path / "e", parquet, names)).train.target.tolist() == [1, 0, 1, 0, 2, 2]


def test_predictions_read_sequences_as_the_training_did(tmp_path):
    loaded = load_sequences(sets(tmp_path / "d", npz, lengths=LENGTHS))
    for write in (npz, safetensors, parquet):
        more = {"target": LABELS} if write is parquet else {}
        write(tmp_path / f"new_{write.__name__}", inputs=X, lengths=LENGTHS, **more)
    for file in sorted(tmp_path.glob("new*")):
        names, raw = zip(*loaded.inputs.read(file), strict=True)
        assert names == tuple(f"{file.name}:{row}" for row in range(1, 7))
        assert torch.equal(loaded.inputs.prepare(raw), loaded.train.inputs)
    np.save(tmp_path / "single.npy", X[0])
    ((name, raw),) = loaded.inputs.read(tmp_path / "single.npy")
    assert name == "single.npy"
    assert torch.equal(loaded.inputs.prepare([raw]), loaded.train.inputs[:1])
    for bad in (X[0].T, np.zeros((5, 2)), np.zeros((0, 2)), X[0] * np.nan, X, np.array("x")):
        np.save(tmp_path / "single.npy", bad)
        with pytest.raises(ep.InputError):
            loaded.inputs.prepare([bad])
        if bad is not X:
            with pytest.raises(ep.InputError) as error:
                list(loaded.inputs.read(tmp_path / "single.npy"))
            assert str(error.value).isprintable()


def nan(at=(2, 1, 0)):
    changed = X.copy()
    changed[at] = np.nan
    return changed


def test_the_inventory_tells_what_may_be_missed(tmp_path):
    npz(tmp_path / "one", inputs=X, target=LABELS.astype(float), length=LENGTHS)
    line = load_sequences(tmp_path / "one.npz", test=0.34).manifest.line()
    assert "not read: 'length'" in line
    assert "whole numbers with a point" in line
    npz(tmp_path / "one", inputs=X, target=0 * NUMBERS + 1.5)
    with pytest.raises(ep.InputError, match=r"is 1\.5 in all training rows"):
        load_sequences(tmp_path / "one.npz", test=0.34)


BAD = {
    "identities": ({"inputs": (0 * X).astype(int) + 2**60, "target": LABELS}, "are not exact"),
    "classes spelled alike": ({"inputs": X, "target": np.array(["cat", "Cat"] * 3)}, "differ only in capitals"),
    "a class without a name": ({"inputs": X, "target": np.array(["cat", ""] * 3)}, "a class without a name"),
    "no target": ({"inputs": X}, "has no 'target': it has 'inputs'"),
    "no inputs": ({"x": X, "target": LABELS}, "has no array 'inputs': it has 'x', 'target'"),
    "two dimensions": ({"inputs": X[0], "target": LABELS}, "'target' of 'train.npz' is"),
    "four dimensions": ({"inputs": X[None], "target": LABELS}, r"give \(count, steps, features\)"),
    "no example": ({"inputs": X[:0], "target": LABELS[:0]}, r"give \(count, steps, features\)"),
    "texts": ({"inputs": X.astype(str), "target": LABELS}, "give real numbers"),
    "complex": ({"inputs": X * 1j, "target": LABELS}, "give real numbers"),
    "nan": ({"inputs": nan(), "target": LABELS}, r"sequence 3 of 'train.npz' is not finite at \[1, 0\]"),
    "fewer targets": ({"inputs": X, "target": LABELS[:4]}, "give one to each of the 6 sequences"),
    "one target": ({"inputs": X, "target": np.array(3)}, "give one to each"),
    "nan target": ({"inputs": X, "target": NUMBERS * np.nan}, "is not finite"),
    "labels in columns": ({"inputs": X, "target": np.stack([LABELS] * 2, 1)}, "give whole numbers or texts"),
    "one class": ({"inputs": X, "target": LABELS * 0}, "has one class, '0'"),
    "long lengths": ({"inputs": X, "target": LABELS, "lengths": LENGTHS + 1}, "'lengths' of .* is 2 to 5: give 1 to 4"),
    "no lengths": ({"inputs": X, "target": LABELS, "lengths": LENGTHS * 0}, "is 0 to 0"),
    "half lengths": ({"inputs": X, "target": LABELS, "lengths": LENGTHS * 0.5}, "give a whole number a sequence"),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_do_not_fit_are_refused(tmp_path, case):
    arrays, said = BAD[case]
    folder = sets(tmp_path / "d")
    npz(folder / "train", **arrays)
    with pytest.raises(ep.InputError, match=said) as error:
        load_sequences(folder)
    assert str(error.value).isprintable()


def test_both_files_have_to_fit_together(tmp_path):
    folder = sets(tmp_path / "d")
    for arrays, said in (
        ({"inputs": np.concatenate([X, X], 1), "target": LABELS}, "has 8 steps, more than the 4"),
        ({"inputs": X[:, :, :1], "target": LABELS}, r"has to be \(steps, 2\)"),
        ({"inputs": X, "target": LABELS + 1}, "'4' does not occur in the training"),
        ({"inputs": X, "target": NUMBERS}, "is of another kind or shape"),
    ):
        npz(folder / "test", **arrays)
        with pytest.raises(ep.InputError, match=said):
            load_sequences(folder)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = sets(tmp_path / "d")
    ragged = np.empty(2, object)
    ragged[:] = [np.ones(2), Evil()]
    np.savez(folder / "train.npz", inputs=ragged, target=LABELS[:2])
    with pytest.raises(ep.InputError, match="cannot be read"):
        load_sequences(folder)
    (folder / "train.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ep.InputError, match="does not begin as a file of NumPy's"):
        load_sequences(folder)
    np.save(tmp_path / "x.npy", ragged, allow_pickle=True)
    with pytest.raises(ep.InputError, match="cannot be read"):
        list(ArrayInputs((2,)).read(tmp_path / "x.npy"))
    assert not (tmp_path / "executed").exists()


def said(folder):
    """The error of a folder; "" if the damage changes a value only."""
    try:
        load_sequences(folder)
    except ep.InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("write", [npz, safetensors, parquet])
def test_damaged_files_are_refused_in_one_line(tmp_path, write):
    folder = sets(tmp_path / "d", write)
    (file,) = folder.glob("train.*")
    whole = file.read_bytes()
    for cut in (0, 1, 5, 50, len(whole) // 2, len(whole) - 1):
        for damaged in (whole[:cut], whole[:cut] + b"\xff" * 30 + whole[cut + 30 :]):
            file.write_bytes(damaged)
            assert said(folder).isprintable()


def test_ragged_parquet_that_does_not_fit_is_refused(tmp_path):
    good = [[[1.0, 2.0]], [[3.0, 4.0]]]
    for column, said in (
        ([[[1.0], [1.0, 2.0]], [[1.0]]], "vectors of 1 to 2 features"),
        ([[1.0, 2.0], [3.0, 4.0]], "give lists of lists"),
        ([[[[1.0]]], [[[1.0]]]], "give lists of lists"),
        ([[["a"]], [["b"]]], "give real numbers"),
        ([[[1.0, None]], [[1.0, 2.0]]], "missing values"),
        ([None, [[1.0, 2.0]]], "missing values"),
        ([[[1.0, 2.0]], []], "sequence 2|Sequence 2"),
    ):
        pq.write_table(pa.table({"inputs": column, "target": [0, 1]}), tmp_path / "x.parquet")
        with pytest.raises(ep.InputError, match=said):
            load_sequences(tmp_path / "x.parquet", test=0.5)
    pq.write_table(pa.table({"inputs": good, "target": [[1.0], [1.0, 2.0]]}), tmp_path / "x.parquet")
    with pytest.raises(ep.InputError, match="unequal lengths"):
        load_sequences(tmp_path / "x.parquet", test=0.5)
    sliced = pa.table({"inputs": good * 3, "target": [0, 1] * 3}).slice(1, 4)
    pq.write_table(sliced, tmp_path / "x.parquet")
    assert len(load_sequences(tmp_path / "x.parquet", test=0.5).train) == 2


# Arrays of a user's own


def test_arrays_of_one_shape(tmp_path, double):
    inputs = ArrayInputs((4, 2))
    np.savez(tmp_path / "a.npz", inputs=X, other=LABELS)
    np.savez(tmp_path / "b.npz", only=X.astype(np.float16))
    np.save(tmp_path / "c.npy", X[1])
    save_file({"inputs": X}, tmp_path / "d.safetensors")
    names, raw = zip(*inputs.read(tmp_path), strict=True)
    assert names[:2] == ("a.npz:1", "a.npz:2")
    assert (len(names), names[12]) == (19, "c.npy")
    prepared = inputs.prepare(raw)
    assert prepared.dtype == torch.float64
    assert prepared[13:].tolist() == X.tolist()
    assert inputs.prepare([]).shape == (0, 4, 2)


def test_arrays_of_other_shapes_or_kinds_are_refused(tmp_path):
    inputs = ArrayInputs((4, 2))
    for bad in (X[:, :3], X[0, 0], X[:0], nan(), X.astype(str), np.array(3.0)):
        np.save(tmp_path / "a.npy", bad)
        with pytest.raises(ep.InputError) as error:
            list(inputs.read(tmp_path / "a.npy"))
        assert str(error.value).isprintable()
    np.savez(tmp_path / "a.npz", a=X, b=X)
    (tmp_path / "a.txt").write_text("1")
    for place in (tmp_path / "a.npz", tmp_path / "a.txt", tmp_path / "none.npy", "/dev/null"):
        with pytest.raises(ep.InputError):
            list(inputs.read(place))
    for raw in ([X[0], X[0, :2]], [nan()[2]], ["text"], [None]):
        with pytest.raises(ep.InputError):
            inputs.prepare(raw)
