"""A hook of the documentation: pages that are made from the package, so that they cannot be older than it.

Makes a page for each namespace of the API, and one with the help of each command.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import itertools
import os
import re
import sys
import tempfile
import types
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import eqprop

NAMESPACES = (
    *("eqprop", "eqprop.energy", "eqprop.settling", "eqprop.learning", "eqprop.models", "eqprop.tasks"),
    *("eqprop.substrates", "eqprop.devices", "eqprop.physics", "eqprop.diagnostics", "eqprop.testing", "eqprop.errors"),
    "eqprop.report",
)
SOURCE = re.compile(r"\]\(\.\./((?:examples|src|benchmarks|tests|tools)/[^)]*|CITATION\.cff|LICENSE)\)")
COMMANDS = ("train", "resume", "evaluate", "predict", "check", "report", "compare", "reproduce", "recipes")


ROOT = os.getcwd()
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # for commands in tutorials


def names_of(namespace: str) -> list[str]:
    """The public names of a namespace: what a package re-exports, or what a module defines."""
    module = importlib.import_module(namespace)
    found = [name for name in dir(module) if not name.startswith("_")]
    if hasattr(module, "__path__"):
        return [n for n in found if not isinstance(getattr(module, n), types.ModuleType)]
    return [n for n in found if getattr(getattr(module, n), "__module__", None) == namespace]


def api(namespace: str) -> str:
    """The page of a namespace: its docstring, its classes and functions, and a table of its constants."""
    module = importlib.import_module(namespace)
    lines, constants, elsewhere = [f"# {namespace}", "", module.__doc__ or "", ""], [], []
    for name in names_of(namespace):
        value = getattr(module, name)
        if isinstance(value, type | types.FunctionType) and value.__module__.startswith("eqprop"):
            home = f"{value.__module__}.{value.__qualname__}"
            if page_of(home) == namespace and value.__name__ == name:
                lines += [f"::: {home}", ""]
            else:
                told = (value.__doc__ or "").strip().splitlines()[0]
                elsewhere.append(f"| [{name}][{home}] | {told} |".replace("||", "| |"))
        else:
            constants.append((name, value))
    if elsewhere:
        lines += ["| name | |", "|---|---|", *elsewhere, ""]
    if constants:
        lines += ["## Constants", "", "| name | value | |", "|---|---|---|"]
        lines += [
            f"| `{name}` | `{' '.join(repr(value).split())[:80]}` | {comments().get(name, '')} |".replace("||", "| |")
            for name, value in constants
        ]
    return "\n".join(lines)


@cache
def page_of(home: str) -> str:
    """The namespace whose page describes this name: the last of ``NAMESPACES`` that offers it."""
    offers = [n for n in NAMESPACES if home in {of(importlib.import_module(n), each) for each in names_of(n)}]
    return offers[-1]


def of(module: types.ModuleType, name: str) -> str:
    """Where a name of a module is defined."""
    value = getattr(module, name)
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


@cache
def comments() -> dict[str, str]:
    """Name -> the string that follows its assignment in the package."""
    found = {}
    for path in sorted(Path(eqprop.__path__[0]).rglob("*.py")):
        body = ast.parse(path.read_text()).body
        for statement, after in itertools.pairwise(body):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
            for target in statement.targets if told and isinstance(statement, ast.Assign) else ():
                for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                    found[each.id] = " ".join(told.split()).replace("|", "\\|")
    return found


def helps() -> str:
    """The page of the command line: the help of each command."""
    from eqprop.cli import main

    lines = ["# The command line", "", "What each command prints for `--help`.", ""]
    for command in COMMANDS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([command, "--help"])
        lines += [f"## eqprop {command}", "", "```text", said.getvalue().rstrip(), "```", ""]
    return "\n".join(lines)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made."""
    for namespace in NAMESPACES:
        files.append(File.generated(config, f"reference/api/{namespace}.md", content=api(namespace)))
    files.append(File.generated(config, "reference/cli.md", content=helps()))
    return files


def on_config(config: Any) -> Any:
    """Lists the pages of the API in the navigation."""
    pages = [{name: f"reference/api/{name}.md"} for name in NAMESPACES]
    for section in config.nav:
        if isinstance(section, dict) and "Reference" in section:
            section["Reference"] = [{"API": pages} if each == {"API": "API"} else each for each in section["Reference"]]
    return config


def on_page_markdown(markdown: str, **about: Any) -> str:
    """Links to files outside the documentation become their names.

    Code runs in a folder of its own, which has the page's blocks that begin with ``# FILE.py`` as files.
    """
    os.chdir(tempfile.mkdtemp())
    for code in re.findall(r"^```python[^\n]*\n(.*?)^```", markdown, re.M | re.S):
        if named := re.match(r"# (\w+\.py)\n", code):
            Path(named[1]).write_text(code)
    return re.sub(r"\[([^]]*)" + SOURCE.pattern, lambda found: f"`{found[2]}`", markdown)


def on_page_content(html: str, **about: Any) -> str:
    """Goes back to the folder of the project."""
    os.chdir(ROOT)
    return html
