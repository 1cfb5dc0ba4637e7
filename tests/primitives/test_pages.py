"""Each section of docs/extending.md is short: under 30 lines of a user's code."""

import re

import pytest
from pages import PAGE, code

TITLES = re.findall(r"^## (.*)$", PAGE.read_text(), re.M)


@pytest.mark.parametrize("title", TITLES)
def test_a_section_is_short(title):
    """Without imports and blank lines, for each of its blocks."""
    for block in code(title).split("\nimport torch\n"):
        lines = [line for line in block.splitlines() if line.strip() and not re.match(r"(import|from) ", line)]
        assert len(lines) < 30, len(lines)
