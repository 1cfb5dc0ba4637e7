"""Writes the table of faults in docs/hardware.md from the docstrings of ``eqprop.substrates``.

python tools/substrate_table.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

from eqprop import substrates
from eqprop.energy import Substrate
from eqprop.substrates import Fault, Together
from eqprop.substrates.laws import told

PAGE = Path(__file__).parents[1] / "docs" / "hardware.md"
BEGIN, END = "<!-- begin of the generated table -->", "<!-- end of the generated table -->"


def faults() -> list[type[Substrate]]:
    """The public classes of faults, by module and name."""
    found = [each for each in vars(substrates).values() if inspect.isclass(each) and issubclass(each, Substrate)]
    return sorted({*found} - {Fault, Together}, key=lambda each: (each.__module__, each.__name__))


def part(fault: type[Substrate], title: str) -> str:
    """What the docstring of a class says under ``title:``."""
    found = told(fault, title)
    if not found:
        raise SystemExit(f"The docstring of {fault.__name__} has no {title!r}.")
    return found


def table() -> str:
    """The table in Markdown."""
    rows = ["| class | fault | error that it adds | remedy | source |", "|---|---|---|---|---|"]
    for each in faults():
        first = (inspect.getdoc(each) or "").splitlines()[0].rstrip(".").replace("``", "`")
        cells = [first, *(part(each, title) for title in ("Effect", "Remedy", "Source"))]
        rows.append(f"| `{each.__name__}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
