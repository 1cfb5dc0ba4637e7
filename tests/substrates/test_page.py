"""docs/hardware.md has the table that the docstrings of the classes make."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from substrate_table import BEGIN, END, PAGE, table


def test_the_table_is_that_of_the_docstrings():
    told = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert told == table(), "run python tools/substrate_table.py"
