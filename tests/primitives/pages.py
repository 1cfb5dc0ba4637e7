"""The code that the tests hold: that of docs/extending.md itself."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import torch

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def code(title: str) -> str:
    """The Python of the section whose title starts so."""
    (text,) = re.findall(rf"^## {re.escape(title)}(?=[:\n]).*?(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))


def section(title: str) -> SimpleNamespace:
    """What the code of that section defines, run with the same random numbers each time."""
    found: dict = {"__name__": "extending"}
    torch.manual_seed(0)
    exec(compile(code(title), title, "exec", dont_inherit=True), found)
    return SimpleNamespace(**{name: value for name, value in found.items() if not name.startswith("__")})
