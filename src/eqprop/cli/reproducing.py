"""``eqprop reproduce``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eqprop.cli.terminal import plain_console
from eqprop.cli.training import resume, train
from eqprop.errors import InputError
from eqprop.loading import absolute
from eqprop.reproductions import RESULTS, chosen_rows, find, find_setting, measured
from eqprop.reproductions.result import FIGURE, Training
from eqprop.reproductions.shown import listing, verdicts
from eqprop.reproductions.work import SEEDS, Interrupted, Job, perform, table_of
from eqprop.runs.folder import quoted
from eqprop.runs.parsing import Parser
from eqprop.training.cuda_graphs import LEAVE_OUT
from eqprop.training.precision import chosen_device


def reproduce_parser() -> Parser:
    """The options of ``eqprop reproduce``."""
    parser = Parser(
        prog="eqprop reproduce",
        description="Run a published result from end to end, or list them. A second call with the same folder goes on.",
    )
    parser.add_argument("result", type=str, nargs="?", default="", help="its name; default: list all, with our figures")
    parser.add_argument("--setting", type=str, default="", help="its size, as the list names them; default: the first")
    parser.add_argument("--rows", type=str, default="", help="names of rows or their beginnings, separated by ;")
    parser.add_argument("--seeds", type=int | None, help="so many of each row; default: the setting's")
    parser.add_argument("--data", type=str, default="", help="where the data are; default: the setting's")
    parser.add_argument("--out", type=str, default="", help="the folder; default: runs/reproduce-RESULT-SETTING")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of each part; 0: as PyTorch chooses")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="of each training")
    parser.add_argument("--cuda_graph", type=bool, default=False, help="on a GPU, capture the steps that can be")
    return parser


def reproduce(arguments: Sequence[str]) -> int:
    """Runs a published result and writes its manifest; without a name, lists them."""
    parser = reproduce_parser()
    options = parser.read(arguments)
    name, console = options["result"] or "", plain_console()
    if not name:
        if given := [each for each, value in options.items() if value != parser.get_default(each)]:
            raise InputError(f"--{given[0]} is of a result: name one; `eqprop reproduce` lists them.")
        for line in listing(RESULTS, measured()):
            console.print(line, soft_wrap=True)
        return 0
    result = find(name)
    size = options["setting"] or result.default
    setting = find_setting(name, size)
    rows = chosen_rows(setting, options["rows"])
    seeds = setting.seeds if options["seeds"] is None else options["seeds"]
    if not 1 <= seeds <= SEEDS:
        raise InputError(f"--seeds {seeds}: give 1 to {SEEDS}.")
    if options["threads"] < 0:
        raise InputError(f"--threads {options['threads']}: give 0 or more.")
    computed = not any(isinstance(setting.rows[row].part, Training) for row in rows)
    for option, value in (("device", "cuda"), ("cuda_graph", True)) if computed else ():
        if options[option] == value:
            raise InputError(f"--{option} {str(value).lower()}: {name} is computed on the CPU: leave it out.")
    folder = Path(options["out"] or f"runs/reproduce-{name}-{size}")
    job = Job(name, result, size, folder, absolute(options["data"]) if options["data"] else "")
    session = {"threads": str(options["threads"]), "device": options["device"], "precision": "32"}
    if options["cuda_graph"]:
        if (device := chosen_device(options["device"])) != "cuda":
            raise InputError(f"--cuda_graph true: the device is {device}, not cuda: {LEAVE_OUT}")
        session["cuda_graph"] = "true"
    try:
        path = perform(job, rows, seeds, session, train, resume, lambda text: console.print(text, soft_wrap=True))
    except Interrupted as stop:
        console.print(f"The same command goes on: eqprop reproduce {quoted_words(arguments)}", soft_wrap=True)
        return stop.status
    for line in verdicts(result, size, table_of(job)):
        console.print(line, soft_wrap=True)
    console.print(f"Manifest: {path}; figure: {folder / FIGURE}; page: {folder / 'README.md'}", soft_wrap=True)
    return 0


def quoted_words(words: Sequence[str]) -> str:
    """Words as a shell takes them."""
    return " ".join(map(quoted, words))
