"""Writes the tutorials as Jupyter notebooks: ``python tools/notebooks.py`` after each change of a tutorial."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TUTORIALS, NOTEBOOKS = ROOT / "docs" / "tutorials", ROOT / "notebooks"
FENCE = re.compile(r"^```(python|bash)[^\n]*\n(.*?)^```\n", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)[^)]*\)")


def notebook(page: Path) -> str:
    """The notebook of a tutorial, as JSON: a cell for each block of code, and for each text between."""
    cells: list[dict[str, Any]] = []

    def add(kind: str, text: str) -> None:
        if text.strip():
            own = {"outputs": [], "execution_count": None} if kind == "code" else {}
            lines = text.strip("\n").splitlines(keepends=True)
            cells.append({"cell_type": kind, "id": f"cell-{len(cells)}", "metadata": {}, "source": lines, **own})

    text, end = page.read_text(), 0
    for found in FENCE.finditer(text):
        add("markdown", LINK.sub("]", text[end : found.start()]))
        language, code = found.groups()
        if language == "bash":
            code = "".join(f"!{line}\n" for line in code.splitlines())
        elif named := re.match(r"# (\w+\.py)\n", code):  # a file for commands, and names for the cells below
            add("code", f"%%writefile {named[1]}\n{code}")
        add("code", code)
        end = found.end()
    add("markdown", LINK.sub("]", text[end:]))
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


if __name__ == "__main__":
    NOTEBOOKS.mkdir(exist_ok=True)
    for page in sorted(TUTORIALS.glob("*.md")):
        (NOTEBOOKS / f"{page.stem}.ipynb").write_text(notebook(page))
