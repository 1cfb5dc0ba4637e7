"""The scripts that complete the command line's words in a shell."""

import shutil

import pytest

from eqprop.cli import main
from eqprop.cli.parsing import SHELLS
from runs.conftest import run


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_name_commands_recipes_and_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("resume", "report", "compare", "cifar10-small", "accept_new_data"):
        assert word in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("re", "resume recipes report reproduce"),
        ("train cifar10-ce-f", "cifar10-ce-fast"),
        ("train digits --ep", "--epochs"),
    ],
    ids=["command", "recipe", "option"],
)
def test_bash_completes(words, wanted, capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = f"COMP_WORDS=(eqprop {words}); COMP_CWORD={len(words.split())}; _shtab_eqprop; echo ${{COMPREPLY[@]}}"
    done = run(["bash", "-c", f"{script}\n{ask}"])
    assert sorted(done.stdout.split()) == sorted(wanted.split())
