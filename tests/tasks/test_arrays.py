"""Tensors and arrays as examples: what is accepted keeps its values, and the rest is refused in one line."""

import numpy as np
import pytest
import torch

import eqprop as ep
from eqprop.tasks import Arrays, Batches, Draw
from eqprop.tasks.arrays import hash_of

X, Y = np.arange(12.0).reshape(4, 3), np.arange(4)


def draw(rows):
    return Draw(torch.tensor(rows), 0, 0)


GOOD = {
    "arrays": (X, Y),
    "tensors": (torch.tensor(X), torch.tensor(Y)),
    "half": (X.astype(np.float16), Y),
    "long double": (X.astype(np.longdouble), Y),
    "big endian": (X.astype(">f4"), Y.astype(">i2")),
    "reversed twice": (X[::-1][::-1], Y[::-1][::-1]),
    "unsigned labels": (X, Y.astype(np.uint64)),
    "bfloat16": (torch.tensor(X).bfloat16(), torch.tensor(Y)),
    "with a gradient": (torch.tensor(X, requires_grad=True), torch.tensor(Y)),
}


@pytest.mark.parametrize("case", GOOD)
def test_numbers_keep_their_values_whatever_holds_them(case):
    held = Arrays(*GOOD[case])
    assert (held.inputs.dtype, held.target.dtype) == (torch.float32, torch.int64)
    assert held.inputs.tolist() == X.tolist()
    assert held.target.tolist() == Y.tolist()
    assert not held.inputs.requires_grad
    assert held.fingerprint() == Arrays(X, Y).fingerprint()


def test_read_only_arrays_and_scalars_of_an_example():
    frozen = X.copy()
    frozen.flags.writeable = False
    assert Arrays(frozen, Y).inputs.tolist() == X.tolist()
    assert Arrays(X[:, 0], Y).inputs.shape == (4,)


def test_default_precision_bytes_truth_values_and_values_as_targets(double):
    held = Arrays(X.astype(np.float32), X[:, :1])
    assert held.inputs.dtype == held.target.dtype == torch.float64
    assert held.target.shape == (4, 1)
    assert Arrays(Y.astype(np.uint8), np.array([True, False, True, True])).target.tolist() == [1, 0, 1, 1]
    assert Arrays(Y.astype(np.uint8), Y.astype(np.uint8)).inputs.dtype == torch.uint8
    assert Arrays({"a": Y.astype(np.uint8)}, {"b": Y.astype(np.uint8)}).target["b"].dtype == torch.int64


def test_mappings_of_clamped_nodes_and_targets_of_several_losses():
    held = Arrays({"left": X, "right": X * 2}, (Y, X))
    (x, y), (again, _) = held.read([draw([2, 0]), draw([1])])
    assert x["right"].tolist() == (X * 2)[[2, 0]].tolist()
    assert y[1].tolist() == X[[2, 0]].tolist()
    assert again["left"].tolist() == X[[1]].tolist()
    assert len(held.subset(torch.tensor([3, 1]))) == 2
    assert held.to("cpu").fingerprint() == held.fingerprint()
    assert Arrays({"right": X * 2, "left": X}, (Y, X)).fingerprint() == held.fingerprint()
    assert Arrays({"left": X, "other": X * 2}, (Y, X)).fingerprint() != held.fingerprint()


def test_a_fingerprint_is_of_the_content():
    held = Arrays(X, Y)
    assert held.subset(torch.tensor([0, 1])).fingerprint() == Arrays(X[:2], Y[:2]).fingerprint()
    others = [Arrays(X + 1e-6, Y), Arrays(X, Y[::-1]), Arrays(X.reshape(4, 3, 1), Y), Arrays(X, Y * 1.0)]
    assert len({each.fingerprint() for each in [held, *others]}) == 5
    assert hash_of(torch.tensor([1, 2])) != hash_of(torch.tensor([1.0, 2.0]))


nan, infinite = X.copy(), X.copy()
nan[2, 1], infinite[3, 0] = np.nan, -np.inf
BAD = {
    "object array": (np.array([[1], [1, 2]], dtype=object), Y, "an array of object"),
    "texts": (np.array(["a", "b"]), Y, "an array of <U1"),
    "bytes": (np.array([b"a", b"b"]), Y, "an array of"),
    "dates": (np.array(["2020-01-01"] * 4, dtype="datetime64[D]"), Y, "an array of"),
    "structured": (np.zeros(4, dtype=[("a", "f4")]), Y, "an array of"),
    "complex": (X + 1j, Y, "an array of complex128"),
    "complex tensor": (torch.tensor(X + 1j), Y, "complex128"),
    "sparse": (torch.tensor(X).to_sparse(), Y, "sparse"),
    "masked": (np.ma.masked_greater(X, 5), Y, "masked"),
    "ragged list": ([[1], [1, 2]], Y, "not list"),
    "list of labels": (X, [0, 1, 2, 3], "not list"),
    "text": ("data.csv", Y, "not str"),
    "none": (X, None, "not NoneType"),
    "one number": (torch.tensor(3.0), Y, "single number"),
    "nan": (nan, Y, "inputs of example 2 is not finite"),
    "infinite": (infinite, Y, "inputs of example 3 is not finite"),
    "too large": (X * 1e60 + 1e60, Y, "inputs of example 0 is not finite"),
    "nan target": (X, nan, "target of example 2 is not finite"),
    "negative label": (X, Y - 1, "negative label -1"),
    "huge label": (X, np.array([0, 2**64 - 1, 0, 0], dtype=np.uint64), "example 1 is above"),
    "lengths": (X, Y[:3], "lengths [3, 4]"),
    "mapping of lengths": ({"a": X, "b": X[:2]}, Y, "lengths [2, 4]"),
    "no example": (X[:0], Y[:0], "no number"),
    "no feature": (X[:, :0], Y, "no number"),
    "no node": ({}, Y, "lengths"),
    "in a mapping": ({"a": "x"}, Y, "inputs['a'] must be"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_what_is_no_array_of_numbers_is_refused_in_one_line(case):
    x, y, said = BAD[case]
    with pytest.raises(ep.InputError) as error:
        Arrays(x, y)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_batches_of_arrays_train_a_network():
    network = ep.chain((3,), [ep.DenseLayer(4, ep.tanh), ep.DenseLayer(1, ep.identity)], ep.SquaredError)
    task = Batches(Arrays(X / 10, X[:, :1] / 10), 3)
    for x, y in task.epoch(0):
        network.landscape(x)
        network.loss.check(y, len(x))
