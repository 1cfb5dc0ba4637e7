"""Writes the table of faults in docs/hardware.md from the docstrings of ``eqprop.substrates``.

python tools/substrate_table.py
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from eqprop import substrates
from eqprop.energy import Substrate
from eqprop.substrates import Fault, Together

PAGE = Path(__file__).parents[1] / "docs" / "hardware.md"
BEGIN, END = "<!-- begin of the generated table -->", "<!-- end of the generated table -->"


def faults() -> list[type[Substrate]]:
    """The public classes of faults, by module and name."""
    found = [each for each in vars(substrates).values() if inspect.isclass(each) and issubclass(each, Substrate)]
    return sorted({*found} - {Fault, Together}, key=lambda each: (each.__module__, each.__name__))


def part(text: str, title: str) -> str:
    """What a docstring says under ``title:``, on one line."""
    found = re.search(rf"^{title}: (.*?)(?=^\w+:|\Z)", text, re.M | re.S)
    if found is None:
        raise SystemExit(f"A docstring has no {title!r}:\n{text}")
    return " ".join(found[1].split())


def table() -> str:
    """The table in Markdown."""
    rows = ["| class | fault | error that it adds | remedy | source |", "|---|---|---|---|---|"]
    for each in faults():
        text = inspect.getdoc(each) or ""
        cells = [text.splitlines()[0].rstrip("."), *(part(text, title) for title in ("Effect", "Remedy", "Source"))]
        rows.append(f"| `{each.__name__}` | {' | '.join(cell.rstrip('.').replace('``', '`') for cell in cells)} |")
    return "\n".join(rows)


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
