"""Imports point one way."""

import ast
import sys
from pathlib import Path

import eqprop

ROOT = Path(eqprop.__file__).parent
RANKS = (
    "_version",
    "_start",
    "errors",
    "checks",
    "files",
    "draws",
    "energy",
    "settling",
    "learning",
    "devices",
    "substrates",
    "models",
    "physics",
    "testing",
    "tasks",
    "training",
    "pretrained",
    "diagnostics",
    "runs",
    "recipes",
    "loading",
    "report",
    "reproductions",
    "cli",
    "__main__",
)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_imports_point_one_way():
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if place == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "eqprop" and len(parts) > 1:
                assert RANKS.index(parts[1]) <= RANKS.index(place), f"{path.relative_to(ROOT)} imports {name}"


def test_energy_imports_torch_alone():
    """Except for metrics, which a user asks for."""
    for path in {*(ROOT / "energy").rglob("*.py")} - {ROOT / "energy" / "metrics.py"}:
        outside = {name for name in imports(path) if (path.name, name) != ("losses.py", "torchmetrics")}  # its types
        assert {name.split(".")[0] for name in outside} <= {*sys.stdlib_module_names, "torch", "eqprop"}, path
