"""Every option of training refuses what it cannot use, in one line, before anything is made."""

import os

import pytest

from runs.refusals import FEW_ODD, HUGE, LONG, NO_NUMBERS, NOT_COUNTS, ODD, named, refused

QUICK = {"epochs": "1", "train_images": "60", "width": "0.1"}
"""Of a run of a moment, if a bad option is let through."""
COUNTS = ("epochs", "batch_size", "free_sweeps", "nudged_sweeps", "processes")
NATURALS = ("seed", "train_images", "depth", "threads")
POSITIVES = ("lr", "width", "residual_limit")
CHOICES = ("device", "precision", "follow_links", "choose_by_test")
NOT_NATURALS = ("-1", "1.5", HUGE, str(2**64), "-9223372036854775809")
NOT_POSITIVES = ("0", "-1", "-0.0", "-1e-300", "1e-400")
NO_LISTS = ("0", "1", "a,b", "[a]", "[nan]", "[.inf]", "[1e400]", "[null]", "[[1]]", "[[]]", "[true]", "{1: 2}")


def options_of_training():
    """(option, value) for ``eqprop train``."""
    for names, values in (
        (COUNTS, (*NOT_COUNTS, *NO_NUMBERS)),
        (NATURALS, (*NOT_NATURALS, *NO_NUMBERS)),
        (POSITIVES, (*NOT_POSITIVES, *NO_NUMBERS)),
        (CHOICES, ("2", "-1", "warp", "[1]", *FEW_ODD)),
        (("epochs", "lr", "device"), ODD),
        (("validation",), ("-0.1", "0.51", "1", "99", *NO_NUMBERS)),
        (("checkpoint_seconds", "report_seconds"), ("-1", *NO_NUMBERS)),
        (("beta",), ("0", *NO_NUMBERS)),
        (("mean", "std"), (*NO_LISTS, *FEW_ODD)),
        (("width",), ("1e12", "1e300")),
        (("processes", "threads"), ("100000", str(2**62))),
        (("depth",), ("100000", str(2**62))),
        (("out", "data", "from"), ("\0", "a\0b")),
        (("out", "data", "from"), (LONG, f"{LONG}/b", "a/" * 3000)),
        (("out", "data", "from"), ("file", "file/below", "loop", "loop/below", "closed/below", "/dev/null")),
        (("data",), ("",)),
        (("data", "from"), ("nowhere", "dangling", "pipe", "/dev/zero", "empty", "*", "a/b/c", "https://a.b/c")),
        (("data", "from"), ("[red]x", "\x1b[31m", "a\nb", "\udcff", "../..", "-", ".", "mine.py", "file", "%s{0}")),
        (("out",), ("empty/../file", "full", "dangling", "pipe", "/proc/run", "..", ".")),
    ):
        yield from ((name, value) for name in names for value in values)


def quick(name):
    return [f"--{each}={value}" for each, value in QUICK.items() if each != name]


@pytest.mark.parametrize(("name", "value"), list(dict.fromkeys(options_of_training())), ids=named)
def test_options_of_training(places, name, value):
    says = {"out": (), "data": (), "from": (), "mean": ("mean",), "std": ("std",)}.get(name, (f"--{name}",))
    new = [] if name == "out" else ["--out", "new"]
    if os.getuid() == 0 and value == "closed/below" and name == "out":
        pytest.skip("root may write everywhere")
    refused(["train", "digits", *quick(name), f"--{name}={value}", *new], *says)


@pytest.mark.parametrize(
    "words",
    [
        *(["--mean", "[]"], ["--mean", "[1, 2]"], ["--std", "[]"], ["--std", "[0]"], ["--std", "[-1]"]),
        *(["--std", "[1, 1]"], ["--mean", "[1, 2]", "--std", "[1, 1, 1]"], ["--mean", "[0]", "--std", "[0, 1]"]),
    ],
    ids=named,
)
def test_means_and_deviations(work, words):
    refused(["train", "digits", *quick(""), *words, "--out", "new"], "mean", "std")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--bta", "1"], "did you mean --beta"),
        (["--batch-sise", "1"], "did you mean --batch_size"),
        (["--epochs"], "--epochs"),
        (["--lr", "-.inf"], "--lr"),
        (["--lr", "-1e400"], "--lr"),
        (["--epochs", "--lr"], "--epochs"),
        (["--epochs=1=2"], "--epochs"),
        (["--choose_by_test"], "--choose_by_test"),
        (["extra"], "extra"),
        (["extra", "words"], "extra"),
        (["--", "x"], "x"),
        (["-x"], "-x"),
        (["-lr", "1"], "-lr"),
        (["---lr", "1"], "---lr"),
        (["--=1"], "--"),
        (["--config", "x"], "--config"),
        (["--print_config"], "--print_config"),
        (["--data.x", "1"], "--data.x"),
        (["--session.out", "1"], "--session.out"),
        (["--help=1"], "--help"),
        (["--\x1b[31m", "1"], "no option"),
        (["--[red]", "1"], "[red]"),
        (["--é", "1"], "--é"),
        (["--epochs\n", "1"], "no option"),
        (["--epochs\0", "1"], "no option"),
        (["\0"], "unrecognized"),
        (["\x1b]0;title\a"], "unrecognized"),
        (["--mean+", "a"], "--mean"),
        (["--mean+=[a]"], "--mean"),
        (["--lr", "1", "--lr", "nan"], "--lr"),
        (["--lr", "1:30"], "--lr must be written in decimal digits, not as '1:30'"),
        (["--seed", "0x10"], "--seed must be written in decimal digits"),
        (["--seed=0b1"], "--seed must be written in decimal digits"),
        (["--mean", "[010]"], "--mean must be written in decimal digits"),
    ],
    ids=named,
)
def test_words_of_training(work, words, says):
    refused(["train", "digits", *quick("epochs" if "epochs" in words[0] else ""), *words, "--out", "new"], says)


@pytest.mark.parametrize("options", [["--threads", "3"], ["--precision", "64"], ["--device", "cpu", "--seed", "7"]])
def test_nothing_of_a_refused_command_stays(work, options):
    refused(["train", "digits", *quick(""), *options, "--beta", "0", "--out", "new"], "--beta")


def test_a_place_that_is_no_text(work):
    refused(["train", "digits", *quick(""), "--out", "new\udcff"], "--out names another folder")
