"""A user's own recipe file may hold anything: each mistake is one line that names its place."""

import os
import sys
from pathlib import Path

import pytest

from eqprop.cli import main
from eqprop.errors import InputError
from eqprop.recipes import find
from runs.refusals import refused

START = """
import torch
import eqprop as ep
from eqprop.tasks import Batches, Images, Normalise
from eqprop.training.loop import Experiment


def parts():
    images = Images(torch.zeros(12, 1, 4, 4, dtype=torch.uint8), torch.arange(12) % 3, 3)
    network = ep.chain((1, 4, 4), [ep.DenseLayer(3)], ep.SquaredError)
    sweeps = ep.FixedSweeps(3)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.5), sweeps, sweeps))
    batches = Batches(images, 4, Normalise((0.0,), (1.0,)))
    return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1), "train": batches, "test": batches,
            "epochs": 1}


"""
ITERABLE = """
class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield torch.zeros(16), 0

def run():
    return Experiment(**parts() | {"train": torch.utils.data.DataLoader(Endless(), batch_size=2)})
"""
DATASET = """
class Own(torch.utils.data.Dataset):
    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        RETURN

def run():
    return Experiment(**parts() | {"train": torch.utils.data.DataLoader(Own(), batch_size=2)})
"""


def returning(**changed):
    """A recipe of which some parts are replaced, by source."""
    words = ", ".join(f"{name!r}: {value}" for name, value in changed.items())
    return f"{START}def run():\n    return Experiment(**parts() | {{{words}}})\n"


def own(length, returned):
    return START + DATASET.replace("LENGTH", length).replace("RETURN", returned)


FILES = {
    # the file itself cannot be run
    "a syntax error": ("def run(:\n", "mine.py"),
    "an indentation error": ("def run():\nreturn 1\n", "mine.py"),
    "tabs and spaces": ("def run():\n\treturn 1\n        return 2\n", "mine.py"),
    "an unfinished string": ('x = "a\n', "mine.py"),
    "an unfinished triple": ('x = """a\n', "mine.py"),
    "no UTF-8": (b"x = '\xff'\n", "mine.py"),
    "null bytes": (b"x = 1\0\n", "mine.py"),
    "an unknown encoding": (b"# coding: nothing\nx = 1\n", "mine.py"),
    "UTF-16": ("x = 1\n".encode("utf-16"), "mine.py"),
    "deep nesting": ("x = " + "(" * 500 + ")" * 500, "mine.py"),
    "deeper nesting": ("x = " + "-" * 200_000 + "1\n", "mine.py"),
    "a long sum": ("x = " + "+".join(["1"] * 100_000) + "\n", "mine.py"),
    "return outside": ("return 1\n", "mine.py"),
    "a future import": ("x = 1\nfrom __future__ import nothing\n", "mine.py"),
    "an import error": ("import nothing_of_the_sort\n", "nothing_of_the_sort"),
    "a name that a module lacks": ("from eqprop import nothing\n", "nothing"),
    "a name that torch lacks": ("import torch\ntorch.nothing\n", "nothing"),
    "a sibling that is missing": ("from . import sibling\n", "mine.py"),
    "a package above": ("from .. import sibling\n", "mine.py"),
    "a sibling with a syntax error": ("import broken\n", "broken.py"),
    "a sibling that raises": ("import raising\n", "raising.py, line 2"),
    "a sibling that exits": ("import leaving\n", "leaving.py, line 2"),
    "two that import each other": ("import circle\nfrom circle import other\n", "mine.py"),
    "an error": ("x = 1 / 0\n", "mine.py, line 1: ZeroDivisionError"),
    "an error without words": ("raise ValueError\n", "mine.py, line 1: ValueError"),
    "an error of many lines": ("raise ValueError('a\\n' * 5000)\n", "mine.py, line 1: ValueError"),
    "an error with colours": ("raise ValueError('\\x1b[31m [red] \\a')\n", "mine.py, line 1: ValueError"),
    "an error that cannot be shown": ("class E(Exception):\n    def __str__(self): raise E\nraise E\n", "line 3"),
    "an error of the base class": ("raise BaseException('x')\n", "mine.py, line 1"),
    "a generator's end": ("raise GeneratorExit\n", "mine.py, line 1"),
    "an error group": ("raise ExceptionGroup('x', [ValueError('y')])\n", "mine.py, line 1"),
    "an assertion": ("assert False\n", "mine.py, line 1: AssertionError"),
    "no memory": ("raise MemoryError\n", "mine.py, line 1: MemoryError"),
    "an exit": ("import sys\nsys.exit()\n", "mine.py, line 2: SystemExit"),
    "an exit with success": ("import sys\nsys.exit(0)\n", "mine.py, line 2: SystemExit"),
    "an exit with words": ("raise SystemExit('bye')\n", "mine.py, line 1: SystemExit: bye"),
    "quit": ("quit()\n", "mine.py, line 1: SystemExit"),
    "recursion": ("def f(): f()\nf()\n", "mine.py, line 1: RecursionError"),
    "a broken pipe": ("raise BrokenPipeError\n", "mine.py, line 1: BrokenPipeError"),
    "a missing file": ("open('nothing')\n", "mine.py, line 1: FileNotFoundError"),
    "another recipe of this package": ("from eqprop.recipes import RECIPES\nRECIPES['nothing']\n", "mine.py"),
    # it has no such function
    "nothing": ("", "has no function 'run'"),
    "a comment": ("# run\n", "has no function 'run'"),
    "another name": ("def ruin(): pass\n", "mine.py:ruin"),
    "a number": ("run = 1\n", "has no function 'run'"),
    "None": ("run = None\n", "has no function 'run'"),
    "a class": ("class run: pass\n", "has no function 'run'"),
    "a module": ("import os as run\n", "has no function 'run'"),
    "a name that is deleted": ("def run(): pass\ndel run\n", "has no function 'run'"),
    "a lookup that raises": ("def __getattr__(name): raise ValueError(name)\n", "mine.py"),
    "a lookup without end": ("def __getattr__(name): return __getattr__(name)\n", "mine.py"),
    # its parameters
    "no type": ("def run(lr=0.1, *, x): pass\n", "'mine.py:run'"),
    "no type and no default": ("def run(lr): pass\n", "'mine.py:run'"),
    "an unknown type": ("def run(lr: Nothing = 1): pass\n", "mine.py"),
    "an unknown type in quotes": ("def run(lr: 'Nothing' = 1): pass\n", ""),
    "a default of another type": ("def run(lr: float = 'a'): pass\n", ""),
    "a required option": ("def run(lr: float): pass\n", "lr"),
    "a required list": ("def run(sizes: list[int]): pass\n", "sizes"),
    "a parameter named like an option": ("def run(out: str = '', device: str = ''): pass\n", "out"),
    "a parameter named from": ("def run(**options): raise TypeError(options)\n", "mine.py"),
    "any positional": ("def run(*sizes: int): return sizes\n", "must return an Experiment"),
    "positional only": ("def run(lr: float = 1.0, /): return lr\n", "mine.py:run"),
    "a parameter named help": ("def run(help: str = ''): pass\n", "help"),
    "a type with parameters": ("def run(x: dict[str, 'Nothing'] = {}): pass\n", ""),
    "a type of torch": ("import torch\ndef run(x: torch.Tensor = torch.zeros(2)): pass\n", ""),
    # what it returns
    "returns nothing": ("def run(): pass\n", "returned nothing"),
    "returns a number": ("def run(): return 1\n", "returned int"),
    "returns the class": (START + "def run(): return Experiment\n", "returned type"),
    "returns a list": (START + "def run(): return [Experiment(**parts())]\n", "returned list"),
    "returns the parts": (START + "def run(): return parts()\n", "returned dict"),
    "returns the model": (START + "def run(): return parts()['model']\n", "returned Equilibrium"),
    "a generator": (START + "def run(): yield Experiment(**parts())\n", "returned generator"),
    "a lambda": ("run = lambda: 1\n", "returned int"),
    "a partial": ("from functools import partial\nrun = partial(int, '3')\n", ""),
    "an object that is called": ("class Call:\n    def __call__(self): return 1\nrun = Call()\n", ""),
    # what it raises
    "raises": ("def run(): raise ValueError('x')\n", "mine.py, line 1: ValueError: x"),
    "raises far away": ("import torch\ndef run():\n    torch.zeros(2) @ torch.zeros(3)\n", "mine.py, line 3"),
    "raises in a sibling": ("import helper\ndef run(): helper.fail()\n", "helper.py, line 2: KeyError"),
    "exits": ("import sys\ndef run(): sys.exit(0)\n", "mine.py, line 2: SystemExit"),
    "exits with 3": ("def run(): raise SystemExit(3)\n", "mine.py, line 1: SystemExit: 3"),
    "recurs": ("def run(): return run()\n", "mine.py, line 1: RecursionError"),
    "stops an iteration": ("def run(): raise StopIteration\n", "mine.py, line 1: StopIteration"),
    "asks": ("def run(): raise EOFError(input())\n", "mine.py, line 1"),
    "raises an error of this package": ("import eqprop\ndef run(): raise eqprop.InputError('no')\n", "no"),
    "raises two lines": ("import eqprop\ndef run(): raise eqprop.InputError('a\\nb')\n", "a b"),
    # arguments of another kind for the experiment
    **{
        f"{name} is {value}": (returning(**{name: value}), name)
        for name, values in {
            "model": ("None", "1", "torch.nn.Linear(1, 1)", "parts()['model'].network", "ep.Equilibrium"),
            "optimizer": ("None", "'sgd'", "torch.optim.SGD", "parts()['optimizer']", "[]"),
            "epochs": ("0", "-1", "1.5", "None", "'3'", "True", "[1]", "float('nan')"),
            "scheduler": ("1", "torch.optim.lr_scheduler.StepLR", "lambda: 1"),
            "train": ("None", "1", "[]", "'digits'", "torch.zeros(3)", "{}", "iter([])", "Images", "[1, 2]"),
            "test": ("None", "1", "[]", "object", "torch.zeros(3)", "range(3)", "[[torch.zeros(16)]]"),
            "validation": ("1", "[]", "'digits'", "torch.zeros(3)"),
            "constrain": ("1", "'clip'"),
            "manifest": ("1", "{}"),
            "inputs": ("1",),
            "outputs": ("'cat'",),
            "monitor": ("1", "'nothing'", "'Accuracy'"),
            "schedule_by_batch": ("'yes'", "None"),
            "nothing": ("1",),
        }.items()
        for value in values
    },
    # data sets of a user's own
    "an iterable data set": (START + ITERABLE, "train"),
    "an empty data set": (own("0", "return torch.zeros(16), 0"), "train"),
    "a negative length": (own("-1", "return torch.zeros(16), 0"), ""),
    "a length of another type": (own("'3'", "return torch.zeros(16), 0"), ""),
    "an example that raises": (own("4", "raise KeyError(index)"), "KeyError"),
    "an example of nothing": (own("4", "return None"), ""),
    "an example without a target": (own("4", "return torch.zeros(16)"), ""),
    "an example of three": (own("4", "return torch.zeros(16), 0, 0"), ""),
    "an example of another size": (own("4", "return torch.zeros(15), 0"), ""),
    "examples of two sizes": (own("4", "return torch.zeros(16 + index), 0"), ""),
    "a target of text": (own("4", "return torch.zeros(16), 'cat'"), ""),
    "a target of floats": (own("4", "return torch.zeros(16), 0.5"), ""),
    "a target beyond": (own("4", "return torch.zeros(16), 7"), ""),
    "a negative target": (own("4", "return torch.zeros(16), -1"), ""),
    "inputs of integers": (own("4", "return torch.zeros(16, dtype=torch.int64), 0"), ""),
    "inputs of text": (own("4", "return 'abc', 0"), ""),
    "inputs that are not finite": (own("4", "return torch.full((16,), float('nan')), 0"), ""),
    # parts of the network of another kind
    **{
        f"wrong: {source}": (f"{START}def run():\n    return {source}\n", "")
        for source in (
            *("ep.chain((1, 4, 4), [torch.nn.Linear(16, 3)], ep.SquaredError)", "ep.DenseLayer(64, torch.relu)"),
            *("ep.DenseLayer(64, 'relu')", "ep.DenseLayer(0)", "ep.DenseLayer(-1)", "ep.DenseLayer('3')"),
            *("ep.ConvLayer(3, pool=torch.nn.AvgPool2d(2))", "ep.ConvLayer(3, kernel=0)", "ep.ConvLayer(3, stride=-1)"),
            *("ep.chain((1, 4, 4), [], ep.SquaredError)", "ep.chain(4, [ep.DenseLayer(3)], ep.SquaredError)"),
            *("ep.chain((1, 4, 4), [ep.DenseLayer(3)], torch.nn.CrossEntropyLoss())", "ep.symmetric('a')"),
            *("ep.EquilibriumPropagation('symmetric', 20, 5)", "ep.symmetric(0)", "ep.symmetric(float('nan'))"),
            *("ep.EquilibriumPropagation(ep.symmetric(0.5), 20, 5)", "ep.FixedSweeps(0)", "ep.FixedSweeps(1.5)"),
            *("ep.Equilibrium(None, None)", "ep.UntilConverged(-1.0, 5)", "Normalise((0.0,), (0.0,))"),
            *("Batches(None, 4)", "Batches(parts()['train'].examples, 0)", "Images(torch.zeros(3), torch.zeros(3), 3)"),
            *("Images(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 9]), 3)", "ep.load('nowhere')"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_recipe_files(work, name):
    source, says = FILES[name]
    Path("mine.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    Path("broken.py").write_text("def (")
    Path("raising.py").write_text("x = 1\nraise KeyError('x')\n")
    Path("leaving.py").write_text("import sys\nsys.exit(0)\n")
    Path("circle.py").write_text("import mine\nfrom mine import other\n")
    Path("helper.py").write_text("def fail():\n    raise KeyError('x')\n")
    says = [says] if says else []
    for words in (["train", "mine.py:run", "--out", "new"], ["check", "mine.py:run", "--out", "new"]):
        said = refused(words, *says)
        assert "cli/__init__.py" not in said
    assert not os.path.exists("new")


BUILT_ON = """
from eqprop.recipes.deep import CifarDeep


class Mine(CifarDeep):
    more: int = 2


def run(**options):
    mine = Mine(**options)
    return mine.taught_by(mine.estimator)
"""


def test_a_recipe_that_builds_on_another_has_the_options_of_both(work, capsys):
    Path("mine.py").write_text(BUILT_ON)
    with pytest.raises(SystemExit):
        main(["train", "mine.py:run", "--help"])
    told = capsys.readouterr().out
    assert "--more" in told
    assert "--weight_decay" in told
    assert "mine" in refused(["train", "mine.py:run", "--more", "much", "--out", "new"], "more")


def test_a_file_with_another_modules_name_is_refused_where_that_hides_its_options(work):
    Path("random.py").write_text(BUILT_ON)
    assert "rename the file" in refused(["train", "random.py:run", "--out", "new"], "random")
    Path("random.py").write_text("def run(): pass\n")
    refused(["train", "random.py:run", "--out", "new"], "returned nothing")


def test_what_a_recipe_file_leaves_behind(work, monkeypatch):
    monkeypatch.syspath_prepend(str(work))
    Path("base.py").write_text("def good(): pass\nraise KeyError(1)\n")
    Path("top.py").write_text("from base import good\ndef run(): return good\n")
    for name in ("base.py:good", "top.py:run"):
        with pytest.raises(InputError, match=r"base\.py, line 2"):
            find(name)
    assert not {"base", "top"} & sys.modules.keys()  # nothing half made
    Path("other.py").write_text("def run(): return 1\n")
    import other

    find("other.py:run")
    assert sys.modules["other"] is other  # who has imported it goes on with that
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    Path("colorsys.py").write_text("def run(): return 1\n")
    find("colorsys.py:run")
    assert "colorsys" not in sys.modules  # that of Python can still be imported
    Path("mine.py").write_text("def run(): return 1\n")
    find("mine.py:run")
    Path("mine.py").write_text("def run(): return 22\n")
    assert find("mine.py:run")() == sys.modules["mine"].run() == 22
    for name in ("other", "mine"):
        monkeypatch.delitem(sys.modules, name)
