"""Commands, recipes, folders of runs and their options that cannot be used are refused in one line."""

import errno
import os
from pathlib import Path

import pytest

from eqprop.cli import main
from runs.refusals import FEW_ODD, HUGE, LONG, NO_NUMBERS, NOT_COUNTS, answer, check_line, named, refused

NO_COMMANDS = (
    *("", " ", "fly", "trian", "Train", "train ", "--trian", "-x", "--", "\0", "\x1b[31m", "é", "数", "../train", "*"),
    *(
        "--version=1",
        "--Version",
        "__init__",
        "training:train",
        "[red]",
        "1",
        "a\nb",
        LONG,
        "tr",
        "--verbose",
        "\udcff",
    ),
)


@pytest.mark.parametrize("command", NO_COMMANDS, ids=named)
def test_commands(work, command):
    refused([command, "x"], "no command")


NO_RECIPES = (
    *("digitz", "Digits", " digits", "digits ", "mnist_ep", "mnist", "1", "", "*", "[red]", "\x1b[31m", "é", "\0"),
    *("nofile.py", "nofile.py:run", "file", "file:run", "full", "mine.py", "mine.py:", "mine.py:nose", ":", ":run"),
    *("mine.py:\0", "mine.py:run:x", "\0:run", f"{LONG}.py:run", f"mine.py:{LONG}", "/dev/null:run", "pipe:run"),
    *("pipe.py:run", "folder.py:run", "folder.py", "loop:run", "loop.py:run", "dangling.py:run", "mine.pyc:run"),
    *("mine.py:__doc__", "mine.py:__class__", "mine.py:number", "mine.py:Kind", "mine.py:[red]", "~:run", "a\nb"),
    *("mine:run", "os:system", "mine.py:run.x", "empty.py:run", "binary.py:run", "binary.py", "a" * 100_000),
    *("closed.py:run", "full/precious:run", "\udcff.py:run", "mine.py:\udcff", "\u202ex", "."),
)


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("recipe", NO_RECIPES, ids=named)
def test_recipes(places, command, recipe):
    Path("mine.py").write_text("number = 1\nclass Kind: pass\ndef run(): return 1\n")
    Path("folder.py").mkdir()
    Path("empty.py").touch()
    Path("binary.py").write_bytes(bytes(range(256)))
    Path("closed.py").write_text("")
    Path("closed.py").chmod(0)
    os.mkfifo("pipe.py")
    Path("loop.py").symlink_to("loop.py")
    Path("dangling.py").symlink_to("nowhere")
    said = refused([command, recipe, "--out", "new"])
    assert len(said) < 1500, "the line shows all of a long name"


WORDS_OF_COMMANDS = [
    *(["report"], ["compare"], ["compare", "run"]),
    *(["resume"], ["evaluate"], ["predict"], ["completion"], ["resume", "run", "run"], ["evaluate", "run", "x"]),
    *(["resume", "--epochs", "3"], ["recipes", "x"], ["recipes", "--x"], ["recipes", "--out", "x"], ["recipes", "-x"]),
    *(["completion", "fish"], ["completion", ""], ["completion", "\0"], ["completion", "bash", "x"]),
    *(["completion", "--x"], ["completion", "BASH"], ["completion", "[red]"]),
    *(["resume", "run", f"--epochs={value}"] for value in (*NOT_COUNTS, "1", *NO_NUMBERS) if value != "null"),
    *(["evaluate", "run", f"--settled={value}"] for value in ("-1", *NO_NUMBERS)),
    *(["evaluate", "run", f"--precision={value}"] for value in ("7", "auto", "", "1e400", "[32]", *FEW_ODD)),
    *([command, "run", f"--checkpoint={value}"] for command in ("evaluate", "predict", "check")
      for value in ("", "worst", "../best", "..", "best.json", "/etc/passwd", "a/b", "*", LONG, *FEW_ODD)),
    *([command, "run", f"--data={value}"] for command in ("resume", "evaluate", "predict", "check", "report")
      for value in ("nowhere", "\0", LONG, "file", "empty", "pipe", "loop", "/dev/zero", "a\nb", "[red]")),
    *([command, "run", word] for command in ("resume", "evaluate", "predict", "check", "report")
      for word in ("--trust_recipe=1", "--trust=yes", "--accept_new_data=0", "--lr", "--bta=1", "--\0", "-z")),
    *(["check", "run", f"--{name}={value}"] for name in ("images", "nudge", "pictures")
      for value in ("-1", "-0.5", HUGE, *NO_NUMBERS)
      if (name, value) not in {("pictures", "true"), ("images", "null")}),
    *(["check", "digits", f"--{name}={value}"] for name in ("images", "nudge", "epochs", "lr", "pictures")
      for value in ("-1", "-0.5", "a", "", ".nan", "1e400", "[1]")),
    *(["check", "run", "--pictures=false", f"--out={value}"] for value in ("file", "file/x", "\0", LONG, "loop")),
    *(["report", "run", f"--seconds={value}"] for value in ("-1", *NO_NUMBERS)),
    *(["resume", "run", f"--report_seconds={value}"] for value in ("-1", *NO_NUMBERS)),
    *(["report", "run", "--live", f"--port={value}"] for value in ("-1", "65536", HUGE, *NO_NUMBERS)),
    *(["report", "run", *words] for words in (["--live", "--out", "x"], ["run"], ["--live=1"], ["--checkpoint=last"])),
    *(["report", "run", "--out", value] for value in ("full", "nowhere/x.html", "\0", LONG, "file/x", "pipe")),
    *(["compare", "run", "digits-run", "--out", value] for value in ("full", "nowhere/x.html", "\0", LONG, "file/x")),
    *(["compare", *words] for words in (["run", "run"], ["run", "nowhere"], ["run", "file"], ["run", "--x"])),
    *(["predict", "run", "--out", value] for value in ("full", "nowhere/x.csv", "\0", LONG, "file/x", "/dev/full/x")),
    *([command, "run", "--out", f"run/{file}"] for command in ("predict", "report")
      for file in ("run.json", "metrics.csv", "last.json", "model.safetensors", "curves.png")),
    *(["compare", "run", "run2", "--out", "run/run.json"], ["predict", "run", "--out", "/dev/null"]),
    *(["report", "nowhere", "--out", ""], ["check", "runs/nowhere"], ["predict", "run", ""]),
    *(["evaluate", "run", "--substrate", value] for value in
      ("..", "PCM", "os.system", "json.dumps", "torch.nn", "pathlib.Path", ".x", "x.")),
    *(["evaluate", "run", "--substrate=pcm", f"--age={value}"] for value in
      ("-1", "1Y", "1 fortnight", "1e400", "1e300y", "nan", "1e10y")),
    *(["predict", "run", value] for value in
      ("nowhere", "\0", LONG, "file", "empty", "loop", "dangling", "pipe", "/dev/zero", "*", "a\nb", "mine.py")),
]  # fmt: skip


@pytest.mark.parametrize("words", WORDS_OF_COMMANDS, ids=named)
def test_words_of_commands(places, run_folder, words):
    refused(words)


NO_RUNS = (
    *(
        "nowhere",
        "",
        " ",
        ".",
        "..",
        "/",
        "file",
        "empty",
        "full",
        "loop",
        "dangling",
        "pipe",
        "/dev/null",
        "/dev/zero",
    ),
    *("\0", LONG, "a/" * 3000, "file/x", "*", "[red]", "\x1b[31m", "a\nb", "é", "\udcff", "~", "$HOME", "run/run.json"),
    *("closed", "closed/x", "file.json", "digits", "https://a.b/c", "user/name", "-"),
)


@pytest.mark.parametrize("command", ["resume", "evaluate", "predict", "report"])
@pytest.mark.parametrize("run", NO_RUNS, ids=named)
def test_folders_of_runs(places, run_folder, command, run):
    refused([command, "--", run] if run == "-" else [command, run])


@pytest.mark.parametrize("value", ["pipe", "file", "/proc/self/mem", "closed/x"])
def test_a_place_for_predictions(places, run_folder, value):
    """No file of another kind is replaced, and nothing hangs."""
    found = answer("predict", "run", "--out", value)
    if found.status:
        check_line(found.err)
    assert Path("file").read_text() == "mine"


def test_answers_replace_earlier_ones(run_folder):
    for _ in range(2):
        assert answer("predict", "run", "--out", "answers.csv").status == 0


def test_a_home_in_the_place_of_a_run(run_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert answer("predict", "~/run", "--out=~/answers.csv").status == 0
    assert Path("answers.csv").exists()


def test_a_disk_that_is_full_when_a_run_is_locked(run_folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("eqprop.runs.lock.os.pwrite", full)
    refused(["resume", "run"], "Cannot write run/.lock (No space left on device)")


def test_a_network_without_a_finite_equilibrium(run_folder, monkeypatch):
    monkeypatch.setattr("eqprop.cli.using.measure", lambda *_: {"loss": float("nan")})
    refused(["evaluate", "run"], "The test loss of the best weights is nan")


UNUSED = [
    ("digits-pc", "--rule", "backpropagation", "--beta", "0.1"),
    ("digits-pc", "--rule", "backpropagation", "--passes", "2"),
    ("cifar10-deep-backpropagation", "--data", "digits", "--cutout", "0", "--mean", "[0.3]", "--std", "[0.4]",
     "--free_sweeps", "3"),
    ("cifar10-predictive", "--data", "digits", "--mean", "[0.3]", "--std", "[0.4]", "--depth", "1", "--rates",
     "[0.1, 0.1]", "--rule", "ep", "--learnt", "3"),
    ("mnist-study", "--data", "digits", "--rule", "rbp", "--nudged_sweeps", "3"),
    ("mnist-study", "--data", "digits", "--rule", "cl", "--beta", "0.3"),
    ("mnist-ep", "--data", "digits", "--write_lr", "0.1"),
    ("mnist-ep", "--data", "digits", "--write", "pulses", "--lr", "0.1"),
    ("mnist-backpropagation", "--data", "digits", "--choose_by_test", "true", "--validation", "0.2"),
    ("digits", "--choose_by_test", "true", "--validation", "0.2"),
    ("digits-deep", "--choose_by_test", "false"),
]  # fmt: skip


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("words", UNUSED, ids=" ".join)
def test_an_option_without_effect_is_refused(work, command, words):
    """With the others that are given; the last one is that option."""
    place = ["--width", "0.1"] if words[0].startswith("cifar10") else []
    refused([command, *words[:-2], *place, *words[-2:]], " ".join(words[-2:]), "would have no effect")


def test_what_has_an_effect_is_not_refused(work):
    few = ["--epochs", "1", "--train_images", "40", "--report_seconds", "0", "--width", "0.1"]
    deep = ["--data", "digits", "--cutout", "0", "--mean", "[0.3]", "--std", "[0.4]", "--batch_size", "32"]
    assert main(["train", "cifar10-deep-backpropagation", *few, *deep, "--feedback_gain", "0.1"]) == 0
    assert main(["train", "digits", *few, "--choose_by_test", "true", "--validation", "0"]) == 0


def test_a_share_for_the_test_set_is_refused_where_there_is_one(work):
    Path("sides").mkdir()
    for side in ("train", "test"):
        rows = "".join(f"{i % 7},{i % 3},{'ab'[i % 2]}\n" for i in range(40))
        Path("sides", f"{side}.csv").write_text(f"one,two,kind\n{rows}")
    words = ["train", "table", "--data", "sides", "--target", "kind", "--epochs", "1"]
    refused([*words, "--test_share", "0.3"], "--test_share 0.3", "a test set of its own")
    assert main([*words, "--report_seconds", "0"]) == 0


def test_a_port_without_live_is_refused(run_folder):
    refused(["report", run_folder, "--port", "4000"], "--port 4000", "--live")


def test_options_of_the_test_set_are_refused_for_files(run_folder):
    Path("image").touch()
    refused(["predict", run_folder, "image", "--data", "nowhere"], "--data nowhere", "test set")
    refused(["predict", run_folder, "image", "--accept_new_data"], "--accept_new_data")


def test_a_precision_that_the_weights_do_not_have(run_folder):
    refused(["evaluate", run_folder, "--precision", "64"], "--precision 64", "32 or bf16")


def test_a_value_may_be_spelled_like_an_option(work):
    words = ["train", "digits", "--out", "seed", "--epochs", "1", "--train_images", "40", "--report_seconds", "0"]
    assert main(words) == 0
    assert Path("seed", "run.json").exists()
