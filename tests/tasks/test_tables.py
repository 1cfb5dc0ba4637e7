"""Tables: what is read is what the file says, in any of its forms; what is unclear is refused and named."""

import datetime
import decimal
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import eqprop as ep
from eqprop.tasks.formats import Classes, Values
from eqprop.tasks.tables import TableInputs, load_table

HEADER = "size,rooms,garden,town,price"
ROWS = [
    ["1.5", "2", "true", "Ulm", "10.5"],
    ["2.5", "3", "false", "Bonn", "20.25"],
    ["3.5", "2", "true", "Ulm", "30.5"],
    ["4.5", "5", "true", "Aue", "41.5"],
    ["0.5", "1", "false", "Bonn", "5.5"],
]
COLUMNS = {
    "size": [1.5, 2.5, 3.5, 4.5, 0.5],
    "rooms": [2, 3, 2, 5, 1],
    "garden": [True, False, True, True, False],
    "town": ["Ulm", "Bonn", "Ulm", "Aue", "Bonn"],
    "price": [10.5, 20.25, 30.5, 41.5, 5.5],
}


def text(rows=ROWS, header=HEADER, by=","):
    return "\n".join([header.replace(",", by), *(by.join(row) for row in rows)]) + "\n"


def folder(path: Path, train: str | bytes = text(), test: str | bytes = text(ROWS[:2])):
    path.mkdir(parents=True, exist_ok=True)
    for side, content in (("train", train), ("test", test)):
        (path / f"{side}.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet(path: Path, columns=COLUMNS, side="train.parquet"):
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path / side)
    return path


def cell(row, column, value, rows=ROWS):
    """The rows with another value."""
    changed = [list(each) for each in rows]
    changed[row][HEADER.split(",").index(column)] = value
    return changed


def test_columns_become_inputs_by_the_training_side(tmp_path):
    sets = load_table(folder(tmp_path / "d"), "price")
    x = sets.train.inputs.double()
    assert sets.inputs.columns == ("size", "rooms", "garden", "town")
    assert sets.inputs.kinds == ("number", "number", "truth", "text")
    assert sets.inputs.categories[3] == ("Aue", "Bonn", "Ulm")
    assert sets.inputs.width == 6
    for i, name in enumerate(("size", "rooms", "garden")):
        values = np.array(COLUMNS[name], float)
        assert np.allclose(x[:, i], (values - values.mean()) / values.std(), atol=1e-6)
    assert x[:, 3:].argmax(1).tolist() == [2, 1, 2, 0, 1]
    assert x[:, 3:].sum(1).tolist() == [1] * 5
    assert torch.equal(sets.test.inputs, sets.train.inputs[:2])
    assert isinstance(sets.outputs, Values)
    scores = sets.train.target
    assert scores.shape == (5, 1)
    answers = [value for (value,) in sets.outputs.answers(scores, None)]
    assert answers == pytest.approx(COLUMNS["price"], rel=1e-6)
    line = sets.manifest.line()
    assert "4 columns to 6 inputs, target 'price'" in line
    assert sets.manifest.place == str(tmp_path / "d")


FORMS = {
    "semicolons": text(by=";"),
    "tabs": text(by="\t"),
    "byte order mark": b"\xef\xbb\xbf" + text().encode(),
    "windows lines": text().replace("\n", "\r\n"),
    "no last newline": text().rstrip("\n"),
    "spaces": text(by=" , "),
    "quotes": text([[f'"{value}"' for value in row] for row in ROWS]),
    "signs": text(cell(0, "size", "+1.5")),
    "exponents": text(cell(1, "size", "25e-1")),
    "capitals": text().replace("true", "True").replace("false", "FALSE"),
    "empty lines": text().replace("\n", "\n\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_csv_gives_the_same_numbers(tmp_path, form):
    plain = load_table(folder(tmp_path / "plain"), "price")
    other = load_table(folder(tmp_path / "other", FORMS[form]), "price")
    assert torch.equal(plain.train.inputs, other.train.inputs)
    assert torch.equal(plain.train.target, other.train.target)
    assert plain.inputs == other.inputs
    assert not other.manifest.differences(plain.manifest)


def test_parquet_is_the_same_table_as_csv(tmp_path):
    plain = load_table(folder(tmp_path / "csv"), "price")
    kinds = {
        "size": pa.array(COLUMNS["size"], pa.float32()),
        "rooms": pa.array(COLUMNS["rooms"], pa.int8()),
        "garden": pa.array(COLUMNS["garden"]),
        "town": pa.array(COLUMNS["town"]).dictionary_encode(),
        "price": pa.array([decimal.Decimal(str(value)) for value in COLUMNS["price"]], pa.decimal128(20, 6)),
    }
    parquet(tmp_path / "parquet", kinds)
    parquet(tmp_path / "parquet", {name: values[:2] for name, values in reversed(kinds.items())}, "test.parquet")
    other = load_table(tmp_path / "parquet", "price")
    assert other.inputs == plain.inputs
    assert other.outputs == plain.outputs
    assert other.manifest.fingerprints == plain.manifest.fingerprints
    assert torch.equal(other.test.inputs, plain.test.inputs)


def test_quoted_separators_and_newlines_are_part_of_a_text(tmp_path):
    rows = cell(1, "town", '"Bad, ""X""\nam See"')
    sets = load_table(folder(tmp_path / "d", text(rows), text(rows[:2])), "price")
    assert sets.inputs.categories[3] == ("Aue", 'Bad, "X"\nam See', "Bonn", "Ulm")
    assert "\n" not in sets.manifest.line()


def test_the_kind_of_a_target(tmp_path):
    data = folder(tmp_path / "d")
    assert load_table(data, "town", test=0.5).outputs == Classes(("Aue", "Bonn", "Ulm"))
    assert load_table(data, "garden").outputs == Classes(("False", "True"))
    assert load_table(data, "garden").train.target.tolist() == [1, 0, 1, 1, 0]
    assert load_table(data, "rooms", kind="classification").outputs == Classes(("1", "2", "3", "5"))
    assert isinstance(load_table(data, "rooms", kind="regression").outputs, Values)
    both = load_table(data, ["price", "rooms"], ["size", "town"])
    assert both.outputs.header == ("price", "rooms")
    assert both.train.target.shape == (5, 2)
    assert both.inputs.columns == ("size", "town")
    with pytest.raises(ep.InputError, match="'rooms' has whole numbers, which may be classes or amounts"):
        load_table(data, "rooms")


def test_classes_of_numbers_are_in_the_order_of_numbers(tmp_path):
    rows = [[str(i), str(n)] for i, n in enumerate([10, 9, 2, 10, 9, 2])]
    sets = load_table(folder(tmp_path, text(rows, "a,n"), text(rows, "a,n")), "n", kind="classification")
    assert sets.outputs.names == ("2", "9", "10")
    assert sets.train.target.tolist() == [2, 1, 0, 2, 1, 0]


def test_a_share_of_one_file_is_the_test_side(tmp_path):
    rows = [[str(i / 2), "xy"[i % 2], str(i / 4)] for i in range(40)]
    file = tmp_path / "one.csv"
    file.write_text(text(rows, "a,b,c"))
    sets, again, other = (load_table(file, "c", test=0.25, seed=seed) for seed in (1, 1, 2))
    assert (len(sets.train), len(sets.test)) == (30, 10)
    assert sets.manifest.fingerprints == again.manifest.fingerprints
    assert sets.manifest.fingerprints != other.manifest.fingerprints
    mean, std = sets.inputs.means[0], sets.inputs.stds[0]
    held = [sorted((each.inputs[:, 0].double() * std + mean).tolist()) for each in (sets.train, sets.test)]
    assert sorted(held[0] + held[1]) == pytest.approx([i / 2 for i in range(40)], abs=1e-5)
    assert mean == pytest.approx(np.mean(held[0]), abs=1e-6)


def test_what_is_on_one_side_of_one_file_only_is_noted(tmp_path):
    rows = [[str(i), f"t{i}" if i < 8 else "x", "yes" if i % 9 == 0 else "no"] for i in range(12)]
    (tmp_path / "one.csv").write_text(text(rows, "a,b,c"))
    notes = " ".join(load_table(tmp_path / "one.csv", "c", test=0.5).manifest.notes)
    assert "column 'b' has 't" in notes


def test_constant_columns_and_one_category_stay_finite(tmp_path):
    rows = [["0.1", "x", str(i / 3)] for i in range(7)]
    sets = load_table(folder(tmp_path, text(rows, "a,b,c"), text(rows, "a,b,c")), "c")
    assert sets.inputs.stds[0] == 1
    assert sets.train.inputs.tolist() == [[0, 1]] * 7


def test_the_default_precision_is_kept(tmp_path, double):
    sets = load_table(folder(tmp_path), "price")
    assert sets.train.inputs.dtype == sets.train.target.dtype == torch.float64


# Prediction


def test_predictions_read_rows_as_the_training_did(tmp_path):
    data = folder(tmp_path / "d")
    sets = load_table(data, "price")
    kept = TableInputs(**{name: tuples(value) for name, value in json.loads(json.dumps(vars(sets.inputs))).items()})
    assert kept == sets.inputs
    without = tmp_path / "new.csv"
    without.write_text("\n".join(["id;town;garden;rooms;size", *(f"{i};{r[3]};{r[2]};{r[1]};{r[0]}"
                                                                for i, r in enumerate(ROWS))]))  # fmt: skip
    parquet(tmp_path / "p", {name: COLUMNS[name] for name in ("town", "garden", "size", "rooms")}, "x.parquet")
    for place, name in ((data / "train.csv", "train.csv"), (without, "new.csv"), (tmp_path / "p", "x.parquet")):
        names, raw = zip(*kept.read(place), strict=True)
        assert names == tuple(f"{name}:{row}" for row in range(1, 6))
        assert torch.equal(kept.prepare(raw), sets.train.inputs)
    assert torch.equal(kept.prepare([{"size": 1.5, "rooms": 2, "garden": True, "town": "Ulm", "more": None}]),
                       sets.train.inputs[:1])  # fmt: skip


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


NEW = {
    "missing column": ("size,rooms,garden\n1,2,true\n", "'new.csv' has no column 'town'"),
    "similar column": ("size,rooms,garden,Town\n1,2,true,Ulm\n", "did you mean 'Town'"),
    "unknown text": (text(cell(1, "town", "Rom")), "row 2 of 'new.csv', column 'town': 'Rom' does not occur"),
    "text for a number": (text(cell(1, "size", "big")), "row 2 of 'new.csv', column 'size': 'big' is no number"),
    "no truth": (text(cell(1, "garden", "maybe")), "row 2 of 'new.csv', column 'garden': 'maybe' is no truth value"),
    "missing value": (text(cell(4, "rooms", "")), "row 5 of 'new.csv', column 'rooms': the value is missing"),
}


@pytest.mark.parametrize("case", NEW)
def test_other_files_for_a_prediction_are_refused(tmp_path, case):
    content, said = NEW[case]
    sets = load_table(folder(tmp_path / "d"), "price")
    (tmp_path / "new.csv").write_text(content)
    with pytest.raises(ep.InputError, match=said) as error:
        list(sets.inputs.read(tmp_path / "new.csv"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change", [{"size": "1"}, {"size": float("nan")}, {"town": "Rom"}, {"town": 3}, {"size": None}]
)
def test_other_values_for_a_prediction_are_refused(tmp_path, change):
    sets = load_table(folder(tmp_path / "d"), "price")
    good = {"size": 1.5, "rooms": 2, "garden": True, "town": "Ulm"}
    with pytest.raises(ep.InputError, match=f"example 2, column '{next(iter(change))}'"):
        sets.inputs.prepare([good, good | change])


# Refusals

LONG = [[f"{i}.5", f"name {i}"] for i in range(120)]
MANY = [["1", "2", "true", name, number] for number, name in LONG]
BAD = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n", "is empty"),
    "header only": (text([]), "has a header and no row"),
    "one column": (text(by="|"), "has one column"),
    "no target": (text(header="a,b,c,d,e"), "'train.csv' has no column 'price'"),
    "duplicate column": (text(header="size,size,garden,town,price"), "two columns 'size'"),
    "utf-16": (text().encode("utf-16"), "is no text of UTF-8"),
    "latin-1": (text(cell(2, "town", "Köln")).encode("latin-1"), r"Line 4 of .* is not UTF-8 \(byte 0xf6\)"),
    "short row": (text([*ROWS, ["1", "2"]]), "Row 6 of .* has 2 columns, and the header 5"),
    "long row": (text([*ROWS[:3], [*ROWS[0], "x"]]), "Row 4 of .* has 6 columns"),
    "open quote": (text(cell(0, "town", '"Ulm')), "has a row from line 2 on whose quotes do not fit"),
    "a quote that joins two rows": (
        text(cell(0, "town", '"Ulm')).replace("Bonn", '"Bonn', 1),
        "has a row from line 2 on whose quotes do not fit",
    ),
    "a quote with a bar": (text(cell(0, "town", r'"U\"lm"')), "whose quotes do not fit"),
    **{
        f"numbers as {name}": (text([[r[0], write.format(int(r[1])), *r[2:]] for r in ROWS]), says)
        for name, write, says in (
            ("per cent", "{}%", "numbers with other signs, e.g. '.%'"),
            ("money", "$ {}.00", "numbers with other signs"),
            ("base 16", "0x{:x}", "numbers with other signs"),
            ("thousands with spaces", "{}\u00a0000", "numbers with other signs"),
            ("thousands with lines", "{}_000", "numbers with other signs"),
            ("a longer minus", "\u2212{}", "numbers with other signs"),
            ("texts of Excel", "'{}", "numbers with other signs"),
            ("days with names", "{}-Jan-2024", "dates or times, e.g. '.-Jan-2024'"),
            ("months first", "March {} 2024", "dates or times"),
            ("times", "1{}:30:00", "dates or times"),
            ("identities", "115292150460684697{}", "is too large to be exact"),
        )
    },
    "a target of one value": (text([[*r[:4], "1.5"] for r in ROWS]), "'price' is 1.5 in all training rows"),
    "a target of whole numbers with points": (text([[*r[:4], f"{i}.0"] for i, r in enumerate(ROWS)]), "choose kind"),
    "two separators": ("a,b;c,d\n1,2;3,4\n", "may be separated by ',' or ';'"),
    "missing": (text(cell(1, "rooms", "")), "row 2 of 'train.csv', column 'rooms': the value is missing"),
    "missing text": (text(cell(1, "town", " ")), "row 2 of 'train.csv', column 'town': the value is missing"),
    "NA": (text(cell(3, "size", "NA")), "row 4 of 'train.csv', column 'size': the value is missing"),
    "nan": (text(cell(3, "size", "nan")), "row 4 of 'train.csv', column 'size'"),
    "infinite": (text(cell(3, "size", "inf")), "row 4 of 'train.csv', column 'size': 'inf' is no number"),
    "infinite target": (text(cell(3, "price", "-inf")), "row 4 of 'train.csv', column 'price': '-inf' is no number"),
    "overflow": (text(cell(3, "size", "1e999")), "row 4 of 'train.csv', column 'size': inf is not finite"),
    "too far apart": (text(cell(3, "size", "1e300")), "differ too much"),
    "typing error": (
        text(cell(3, "size", "45x")),
        "row 4 of 'train.csv', column 'size': '45x' is no",
    ),
    "decimal comma": (text(by=";").replace(".", ","), "numbers with a comma, e.g. '10,5'"),
    "dates": (
        text([[r[0], "2020-01-0" + r[1], *r[2:]] for r in ROWS]),
        "column 'rooms' has dates or times, e.g. '2020-01-02'",
    ),
    "times": (text([[r[0], f"1/{r[1]}/2020 12:00", *r[2:]] for r in ROWS]), "column 'rooms' has dates"),
    "many texts": (
        text([["1", "2", "true", b, a] for a, b in LONG]),
        "column 'town' has 120 different texts, e.g. 'name 0', more than 100",
    ),
    "index": (text(header=",rooms,garden,town,price"), "without a name, such as pandas writes"),
    "only the target": ("price\n1.5\n2.5\n", "has one column"),
    "binary": (bytes(range(256)) * 3, "is no text of UTF-8"),
    "control": (text(cell(0, "size", "\x1b[31m")), r"row 1 .* '\\x1b\[31m' is no number"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_is_not_clear_is_refused_in_one_line(tmp_path, case):
    content, said = BAD[case]
    with pytest.raises(ep.InputError, match=said) as error:
        load_table(folder(tmp_path / "d", content), "price")
    assert str(error.value).isprintable()


TEST_SIDES = {
    "missing column": (text([r[1:] for r in ROWS], "rooms,garden,town,price"), "'test.csv' has no column 'size'"),
    "more columns": (text([[*r, "1"] for r in ROWS], HEADER + ",more"), "columns that 'train.csv' has not, 'more'"),
    "unknown text": (text(cell(1, "town", "Rom")), "row 2 of 'test.csv', column 'town': 'Rom' does not occur"),
    "other type": (text(cell(1, "size", "big")), "row 2 of 'test.csv', column 'size': 'big' is no number"),
}


@pytest.mark.parametrize("case", TEST_SIDES)
def test_both_files_have_to_fit_together(tmp_path, case):
    content, said = TEST_SIDES[case]
    with pytest.raises(ep.InputError, match=said):
        load_table(folder(tmp_path / "d", test=content), "price")


def test_only_the_named_columns_have_to_be_good(tmp_path):
    extra = [[*row, "2020-01-01", ""] for row in ROWS]
    data = folder(tmp_path / "d", text(extra, HEADER + ",day,"))
    assert load_table(data, "price", ["size", "town"]).inputs.width == 4


ASKED = {
    "unknown target": ({"target": "prise"}, "did you mean 'price'"),
    "unknown input": ({"inputs": ["sise"]}, "did you mean 'size'"),
    "target as input": ({"inputs": ["size", "price"]}, "'price' is named twice"),
    "twice": ({"inputs": ["size", "size"]}, "'size' is named twice"),
    "a text for inputs": ({"inputs": "size"}, "give names of columns"),
    "no target": ({"target": []}, "give names of columns"),
    "kind": ({"kind": "regress"}, "choose from auto, classification, regression"),
    "texts": ({"target": "town", "kind": "regression"}, "column 'town' has texts, e.g. 'Ulm'"),
    "fractions": ({"kind": "classification"}, "column 'price' has 10.5"),
    "two classes": ({"target": ["town", "garden"]}, "has one target"),
}


@pytest.mark.parametrize("case", ASKED)
def test_options_that_do_not_fit_are_refused(tmp_path, case):
    options, said = ASKED[case]
    with pytest.raises(ep.InputError, match=said):
        load_table(folder(tmp_path / "d"), **{"target": "price"} | options)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, 0.01, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(tmp_path, share):
    (tmp_path / "one.csv").write_text(text())
    with pytest.raises(ep.InputError, match="leaves one side empty"):
        load_table(tmp_path / "one.csv", "price", test=share)


def test_classes_that_cannot_be_learnt_are_refused(tmp_path):
    one = text([[str(i), "x"] for i in range(5)], "a,price")
    with pytest.raises(ep.InputError, match="has one class, 'x'"):
        load_table(folder(tmp_path / "one", one, one), "price")
    with pytest.raises(ep.InputError, match="120 different values in 120 rows, which are no classes"):
        load_table(folder(tmp_path / "many", text(LONG, "a,price"), text(LONG[:3], "a,price")), "price")
    huge = text([[str(i), str(2**60 + i)] for i in range(5)], "a,price")
    with pytest.raises(ep.InputError, match="too large to be exact"):
        load_table(folder(tmp_path / "huge", huge, huge), "price", kind="classification")
    for pair in (("cat", "Cat"), ("caf\u00e9", "cafe\u0301")):
        alike = text([[str(i), pair[i % 2]] for i in range(4)], "a,price")
        with pytest.raises(ep.InputError, match="differ only in capitals, spaces or Unicode form"):
            load_table(folder(tmp_path / "alike", alike, alike), "price")


def test_codes_that_begin_with_zero_stay_classes_of_their_own(tmp_path):
    codes = text([[str(i), ("7", "007", "10")[i % 3]] for i in range(6)], "a,price")
    sets = load_table(folder(tmp_path, codes, codes), "price", kind="classification")
    assert sets.outputs == Classes(("007", "7", "10"))


def test_the_inventory_tells_what_may_be_missed(tmp_path):
    rows = [["1", ("cat", "Cat")[i % 2], f"{i}.5"] for i in range(4)]
    table = text(rows, "a,b,price")
    line = load_table(folder(tmp_path, table, table), "price").manifest.line()
    assert "column 'a' has one value" in line
    assert "'Cat', 'cat' in column 'b' differ only in" in line
    assert "the test side is a copy of the train side" in line


def test_blank_lines_before_the_header_are_no_rows(tmp_path):
    data = folder(tmp_path, "\n \r\n" + text())
    assert len(load_table(data, "price").train) == 5


def test_texts_of_parquet_are_read_as_those_of_csv(tmp_path):
    parquet(tmp_path, COLUMNS | {"town": ["Ulm ", "Bonn", "Ulm", " Aue", "Bonn"]})
    parquet(tmp_path, COLUMNS, "test.parquet")
    assert load_table(tmp_path, "price").inputs.categories[-1] == ("Aue", "Bonn", "Ulm")


PARQUET = {
    "dates": (pa.array([datetime.date(2020, 1, 1)] * 5), "is of date32"),
    "times": (pa.array([datetime.datetime(2020, 1, 1)] * 5), "is of timestamp"),
    "lists": (pa.array([[1.0]] * 5), "is of list"),
    "structs": (pa.array([{"a": 1}] * 5), "is of struct"),
    "bytes": (pa.array([b"x"] * 5), "is of binary"),
    "nothing": (pa.nulls(5), "is empty"),
    "missing number": (pa.array([1.0, None, 2.0, 3.0, 4.0]), "row 2 of 'train.parquet', column 'size': the value is"),
    "missing text": (pa.array(["a", "b", None, "a", "b"]), "row 3 of 'train.parquet', column 'size': the value is"),
    "empty text": (pa.array(["a", "", "b", "a", "b"]), "row 2 of 'train.parquet', column 'size': the value is missing"),
    "numbers as texts": (pa.array(list("12345")), "numbers that are stored as texts, e.g. '1'"),
    "identities": (pa.array([2**60 + i for i in range(5)]), "is too large to be exact"),
    "nan": (pa.array([1.0, 2.0, float("nan"), 3.0, 4.0]), "row 3 of 'train.parquet', column 'size': nan is not finite"),
}


@pytest.mark.parametrize("case", PARQUET)
def test_parquet_columns_that_are_no_numbers_or_texts_are_refused(tmp_path, case):
    column, said = PARQUET[case]
    parquet(tmp_path, COLUMNS | {"size": column})
    parquet(tmp_path, COLUMNS, "test.parquet")
    with pytest.raises(ep.InputError, match=said):
        load_table(tmp_path, "price")
    assert load_table(tmp_path, "price", ["rooms"]).inputs.width == 1


def test_parquet_files_of_other_types_damaged_or_of_two_equal_names_are_refused(tmp_path):
    parquet(tmp_path, COLUMNS)
    parquet(tmp_path, COLUMNS | {"size": ["a"] * 5}, "test.parquet")
    with pytest.raises(ep.InputError, match=r"'test.parquet', column 'size' is of kind text, and was of number"):
        load_table(tmp_path, "price")
    twice = pa.Table.from_arrays([pa.array([1.0])] * 2, names=["a", "a"])
    pq.write_table(twice, tmp_path / "test.parquet")
    with pytest.raises(ep.InputError, match="two columns 'a'"):
        load_table(tmp_path, "price")
    whole = (tmp_path / "train.parquet").read_bytes()
    for damaged in (b"", whole[:-20], whole[:40], b"PAR1" + bytes(100) + b"PAR1", whole[:60] + b"x" * 50 + whole[110:]):
        (tmp_path / "test.parquet").write_bytes(damaged)
        with pytest.raises(ep.InputError) as error:
            load_table(tmp_path, "price")
        assert str(error.value).isprintable()


def test_names_with_a_point_in_parquet(tmp_path):
    parquet(tmp_path, {"a": [1.0, 2.0], "a.b": [3.0, 4.0], "c": [0.5, 1.5]})
    parquet(tmp_path, {"a": [1.0, 2.0], "a.b": [3.0, 4.0], "c": [0.5, 1.5]}, "test.parquet")
    assert load_table(tmp_path, "c").inputs.means == (1.5, 3.5)


# Places


def test_folders_with_other_files_and_places_that_are_none(tmp_path):
    data = folder(tmp_path / "d")
    (data / "notes.txt").write_text("x")
    assert load_table(data, "price").manifest.skipped == {"notes.txt": "neither train nor test"}
    (data / "train.parquet").write_bytes(b"")
    with pytest.raises(ep.InputError, match="needs one train file"):
        load_table(data, "price")
    for place in (tmp_path / "none", tmp_path, data / "notes.txt", "a\0b", tmp_path / "a\nb"):
        with pytest.raises(ep.InputError) as error:
            load_table(place, "price")
        assert str(error.value).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipes_and_devices_are_refused_before_they_are_opened(tmp_path):
    data = folder(tmp_path / "d")
    (data / "train.csv").unlink()
    os.mkfifo(data / "train.csv")
    os.mkfifo(tmp_path / "one.csv")
    for place in (data, tmp_path / "one.csv", "/dev/zero"):
        with pytest.raises(ep.InputError):
            load_table(place, "price")


def test_links_out_of_the_folder_need_a_word(tmp_path):
    data = folder(tmp_path / "d")
    (data / "test.csv").rename(tmp_path / "elsewhere.csv")
    (data / "test.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(ep.InputError, match="is a link out of its folder"):
        load_table(data, "price")
    assert len(load_table(data, "price", follow_links=True).test) == 2
