"""What a trained model answers to its test examples: which classes it confuses, its mistakes, and how it settles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from eqprop.learning import Record
from eqprop.report.blocks import Block, Chart, Charts, Gallery, Line, Matrix, Picture, Table, Text, number
from eqprop.report.pictures import is_picture, photograph
from eqprop.report.subject import Clock, TimeOver, Trained
from eqprop.report.words import short
from eqprop.tasks import Classes, ImageInputs, Task, Values
from eqprop.tasks.batches import moved, rows_of
from eqprop.tasks.sequences import SequenceInputs
from eqprop.tasks.tables import TableInputs
from eqprop.tasks.task import Pair

MOST_CLASSES = 24
"""Classes of a matrix; of more the pairs that are confused most are listed."""
MISTAKES = 12
POINTS = 400
"""Of a chart of values."""
COLUMNS = 8
"""Of a table's inputs that are shown."""
BINS = 24
KEPT = 2000
"""Inputs that are kept to be shown."""
FIRST = (4, 16, 64)
"""Where parts of the first batch end."""


@dataclass
class Gathered:
    """What a pass through the test set gave.

    Attributes:
        scores: (examples, ...), on the CPU.
        targets: (examples, ...).
        residuals: node -> (examples,): the change in the last free sweep.
        examples: of the test set, all together.
        kept: (number in the test set, input) of examples that may be shown.
    """

    scores: Tensor
    targets: Any
    residuals: dict[str, Tensor]
    examples: int
    kept: dict[int, Any]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def some(self) -> str:
        """Which examples these are, in words."""
        if len(self) == self.examples:
            return f"all {self.examples:,} test examples"
        return f"the first {len(self):,} of {self.examples:,} test examples, as time allowed"


@torch.no_grad()
def gather(trained: Trained, clock: Clock) -> Gathered:
    """A pass through the test set, as far as time allows.

    Args:
        trained: with a test set.
        clock: of this pass.

    Raises:
        TimeOver: there is no time for a few examples.
    """
    assert trained.test is not None
    model, parts, kept, count = trained.model, list[tuple[Tensor, Any, dict[str, Tensor]]](), dict[int, Any](), 0
    like = next(model.parameters())
    is_classes = isinstance(trained.outputs, Classes)
    for x, y in chunks(trained.test.to(like.device)):
        record = Record()
        try:
            with clock.limiting():
                model(x, record=record)
        except TimeOver:
            if not parts:
                raise
            break
        assert record.scores is not None
        assert record.free is not None
        scores, target = record.scores.cpu(), moved(y, "cpu")
        residuals = {node: value.cpu() for node, value in record.free.residuals.items()}
        parts.append((scores, target, residuals))
        wrong = mistaken(scores, target) if is_classes else torch.arange(len(scores))
        for row in wrong.tolist():
            if len(kept) < KEPT:
                kept[count + row] = moved(rows_of(x, slice(row, row + 1)), "cpu")
        count += len(scores)
    leaves = [tree_leaves(target) for _, target, _ in parts]
    single = all(len(each) == 1 for each in leaves)
    return Gathered(
        torch.cat([scores for scores, _, _ in parts]),
        torch.cat([each[0] for each in leaves]) if single else None,
        {node: torch.cat([each[node] for _, _, each in parts]) for node in parts[0][2]},
        len(trained.test),
        kept,
    )


def chunks(task: Task) -> Iterator[Pair]:
    """The batches of a task; the first in parts that grow, so that a slow network has some answers in time."""
    for index, (x, y) in enumerate(task.epoch(0)):
        size = task.size(index)
        ends = [0, *(end for end in FIRST if index == 0 and end < size), size]
        for begin, end in pairwise(ends):
            yield rows_of(x, slice(begin, end)), rows_of(y, slice(begin, end))


def mistaken(scores: Tensor, target: Any) -> Tensor:
    """The rows of a batch whose label is not that of the largest score."""
    if not isinstance(target, Tensor) or target.ndim != 1 or target.dtype != torch.int64:
        return torch.arange(0)
    return (scores.flatten(1).argmax(1) != target).nonzero().squeeze(1)


def blocks(trained: Trained, found: Gathered) -> Iterator[Block]:
    """What is right and wrong about the answers.

    Args:
        trained: that gave them.
        found: by ``gather``.
    """
    yield Text(f"Of {found.some}; {trained.weights}.")
    target, outputs = found.targets, trained.outputs
    labels = isinstance(target, Tensor) and target.ndim == 1 and target.dtype == torch.int64
    if labels and isinstance(outputs, Classes) and found.scores.flatten(1).shape[1] == len(outputs.names):
        yield from of_classes(trained, found, outputs.names)
    elif isinstance(target, Tensor) and isinstance(outputs, Values) and target.is_floating_point():
        yield from of_values(trained, found, outputs)
    else:
        yield Text("The targets are neither classes nor values of the scores, so there is no picture of the mistakes.")


def of_classes(trained: Trained, found: Gathered, names: Sequence[str]) -> Iterator[Block]:
    target, scores = found.targets, found.scores.flatten(1)
    taken = scores.argmax(1)
    right = int((taken == target).sum())
    yield Text(f"{right:,} of {len(found):,} are right: {100 * right / len(found):.2f} %.")
    count = len(names)
    matrix = torch.bincount(target * count + taken, minlength=count * count).view(count, count)
    if count <= MOST_CLASSES:
        caption = "Confusion matrix: the true class in rows, the answer in columns; numbers of examples"
        yield Matrix(caption, [short(each) for each in names], matrix.tolist())
    wrong = matrix.clone().fill_diagonal_(0)
    if count > MOST_CLASSES and int(wrong.max()):
        order = wrong.flatten().argsort(descending=True)[:20].tolist()
        rows = [
            (short(names[i // count]), short(names[i % count]), f"{int(wrong.flatten()[i]):,}")
            for i in order
            if int(wrong.flatten()[i])
        ]
        yield Table("The pairs of classes that are confused most", ("true", "answer", "examples"), rows)
    loss = trained.model.network.loss
    sure = None if loss is None else loss.probabilities(found.scores)
    sure = scores.softmax(1) if sure is None else sure
    certain = sure.gather(1, taken[:, None]).squeeze(1)
    order = [
        i for i in certain.argsort(descending=True).tolist() if int(taken[i]) != int(target[i]) and i in found.kept
    ]
    if not order:
        yield Text("There is no mistake to show.")
        return
    yield from mistakes(
        trained,
        found,
        [
            (i, short(names[int(target[i])]), short(names[int(taken[i])]), f"{100 * float(certain[i]):.0f} %")
            for i in order[:MISTAKES]
        ],
        "The most confident mistakes",
        ("example", "true", "answer", "probability"),
    )


def mistakes(
    trained: Trained,
    found: Gathered,
    rows: Sequence[tuple[int, str, str, str]],
    caption: str,
    header: tuple[str, str, str, str],
) -> Iterator[Block]:
    """As pictures where the inputs are such, else as rows."""
    first = found.kept[rows[0][0]]
    if is_picture(first) and header[1] == "true":
        pictures = []
        for number_of, true, answer, sure in rows:
            told = f"{answer} ({sure}), is {true}"
            picture = input_picture(trained, found.kept[number_of], f"test example {number_of}: taken for {told}", told)
            assert picture is not None
            pictures.append(picture)
        yield Gallery(f"{caption}: the answer with its probability, and the true class", pictures)
        return
    known = [columns(trained, found.kept[i]) for i, *_ in rows]
    names = list(dict.fromkeys(name for each in known for name in each))[:COLUMNS]
    cells = [
        (str(i), *rest, *(each.get(name, "") for name in names)) for (i, *rest), each in zip(rows, known, strict=True)
    ]
    yield Table(f"{caption} (examples of the test set, counted from 0)", (*header, *names), cells)


def input_picture(trained: Trained, x: Any, alt: str, caption: str = "") -> Picture | None:
    """The picture of a batch of one, in its own colours where these are known; ``None`` if it is none."""
    if not is_picture(x):
        return None
    image, inputs = x[0].cpu(), trained.inputs
    if isinstance(inputs, ImageInputs) and len(inputs.mean) == len(image):
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (inputs.mean, inputs.std))
        image = ((image.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return photograph(image, alt, caption)


def columns(trained: Trained, x: Any) -> dict[str, str]:
    """The inputs of an example by their names, as they were before they were prepared."""
    inputs = trained.inputs
    if not isinstance(x, Tensor):
        return {}
    values = x[0].flatten().tolist()
    if isinstance(inputs, TableInputs) and len(values) == inputs.width:
        found, place = {}, 0
        for name, mean, std, known in zip(inputs.columns, inputs.means, inputs.stds, inputs.categories, strict=True):
            part = values[place : place + (len(known) or 1)]
            found[short(name)] = short(known[part.index(max(part))]) if known else number(part[0] * std + mean)
            place += len(part)
        return found
    if isinstance(inputs, SequenceInputs):
        return {}
    return {f"input {i}": number(value) for i, value in enumerate(values[:COLUMNS])}


def of_values(trained: Trained, found: Gathered, outputs: Values) -> Iterator[Block]:
    mean, std = (torch.tensor(each, dtype=torch.float64) for each in (outputs.mean, outputs.std))
    true, given = (each.flatten(1).double() for each in (found.targets, found.scores))
    if true.shape != given.shape or true.shape[1] != len(mean):
        yield Text("The scores are not the targets' values, so there is no chart of both.")
        return
    true, given = true * std + mean, given * std + mean
    names = [short(name) for name in outputs.names]
    charts = []
    for i, name in enumerate(names[:4]):
        some = slice(0, POINTS)
        line = Line("test examples", true[some, i].tolist(), given[some, i].tolist())
        title = f"{name}: predicted (vertical) against true (horizontal)"
        charts.append(Chart(title, f"true {name}", [line], form="points", diagonal=True))
    yield Charts(charts)
    rows = []
    for i, name in enumerate(names):
        error = given[:, i] - true[:, i]
        spread = float(true[:, i].var(unbiased=False))
        score = 1 - float(error.square().mean()) / spread if spread else float("nan")
        rows.append(
            (name, number(float(error.abs().mean())), number(float(error.square().mean().sqrt())), number(score))
        )
    header = ("value", "mean absolute error", "root mean square error", "R2")
    yield Table("Errors in the units of the data", header, rows[:20])
    largest = ((given - true) / std).abs().amax(1).argsort(descending=True).tolist()
    order = [i for i in largest if i in found.kept][:MISTAKES]
    first = ", ".join(names[:3])
    told = [
        (i, listed(true[i]), listed(given[i]), number(float(((given[i] - true[i]) / std).abs().max()))) for i in order
    ]
    yield from mistakes(
        trained, found, told, "The largest errors", ("example", f"true {first}", "predicted", "error / std")
    )


def listed(values: Tensor) -> str:
    return ", ".join(number(value) for value in values[:3].tolist())


def residuals(found: Gathered) -> Iterator[Block]:
    """How far each layer has settled: the number of examples by the change in the last free sweep."""
    known = {node: each[each.isfinite() & (each > 0)].double().log10() for node, each in found.residuals.items()}
    still = sum(int((each == 0).sum()) for each in found.residuals.values())
    filled = [each for each in known.values() if len(each)]
    if not filled:
        yield Text("No unit changed in the last free sweep: all examples are at rest, or nothing settles.")
        return
    low, high = min(float(each.min()) for each in filled), max(float(each.max()) for each in filled)
    high = max(high, low + 0.5)
    lines = []
    for node, each in known.items():
        counts = torch.histc(each.float(), BINS, low, high).tolist() if len(each) else [0.0] * BINS
        centres = [10 ** (low + (i + 0.5) * (high - low) / BINS) for i in range(BINS)]
        lines.append(Line(node, centres, counts))
    yield Charts(
        [
            Chart(
                "Test examples by the change of a layer in the last free sweep",
                "change",
                lines,
                log_x=True,
                form="bars",
            )
        ]
    )
    rows = [
        (short(node), *(number(float(f)) for f in (each.median(), each.max())))
        for node, each in found.residuals.items()
    ]
    yield Table("The change in the last free sweep", ("layer", "median", "largest"), rows)
    if still:
        yield Text(f"{still:,} times a layer did not change at all, and is in no bar.")
