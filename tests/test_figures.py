"""Each table of measured figures, and each picture, says how it was measured: command, machine, seeds and commit.

The convention: near a table, in its section or at the beginning of one that holds it, one paragraph has all four, as
"Measured by `python benchmarks/NAME.py` on two cores of an AMD EPYC, seeds 0, 1, 2, commit 0123abc." A table of numbers
that nobody measured has the comment ``<!-- not measured -->`` before it.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from eqprop.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NUMBER = re.compile(r"(?<![\d./])\d{1,3}\.\d+(?![\d./])|\d *(%|s|ms|MiB|h)\b|\de-?\d")  # no number of a paper
FEW = 3
"""A table with so many numbers is one of figures."""
PARTS = {
    "a command": re.compile(r"`[^`]*\b(eqprop|python)\s[^`]*`"),
    "a machine": re.compile(r"EPYC|Xeon|Ryzen|H100|H200"),
    "seeds": re.compile(r"\bseeds?\b"),
    "a commit": re.compile(r"\bcommits?\s+[0-9a-f]{7}"),
}
NOT_MEASURED = "<!-- not measured -->"
COMMIT = re.compile(r"\bcommits?\s+([0-9a-f]{7,40})\b|(?<=\| )([0-9a-f]{7})(?= \|)")


def blocks(text):
    """Paragraphs, tables, lists and headings, without fenced code."""
    return re.split(r"\n\s*\n", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def figures_of(text):
    """(what it is, the blocks near it) of each table of figures and each picture.

    Near a table are its own section, and what stands under the headings above it before their first subsection; near a
    picture the whole page.
    """
    found, path, before = [], [], ""
    for block in blocks(text):
        if heading := re.match(r"(#+) ", block.lstrip()):
            path = [each for each in path if each[0] < len(heading[1])] + [(len(heading[1]), [])]
        for _, section in path[-1:]:
            section.append(block)
        if is_of_figures(block) and NOT_MEASURED not in before:
            found.append((block.strip().splitlines()[0], [section for _, section in path]))
        found += [(picture, [blocks(text)]) for picture in re.findall(r"!\[[^]]*\]\([^)]*\)", block)]
        before = block
    return [(what, [block for section in sections for block in section]) for what, sections in found]


def is_of_figures(block):
    rows = block.strip().splitlines()
    cells = [cell for row in rows[2:] for cell in re.sub(r"`[^`]*`", "", row).split("|") if row.startswith("|")]
    return sum(bool(NUMBER.search(cell)) for cell in cells) >= FEW


def lacking(near):
    """What the best of these blocks does not say; empty if one has all."""
    return set(PARTS) - max(({name for name, part in PARTS.items() if part.search(block)} for block in near), key=len)


FIGURES = [
    pytest.param(near, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, (_, near) in enumerate(figures_of(page.read_text()))
]


@pytest.mark.parametrize("near", FIGURES)
def test_figures_say_how_they_were_measured(near):
    assert not lacking(near)


def test_the_rule_finds_what_it_should():
    table = "| a | b |\n|---|---|\n| 1.5 s | 98.2 % |\n| 3.1 | |"
    told = "Measured by `python x.py` on an AMD EPYC, seed 0, commit\n0123abc."
    for place, right in enumerate([True, True, True, False, False]):
        a, b, c, d, e = (told if each == place else "" for each in range(5))
        page = f"# Page\n\n{a}\n\n## One\n\n{b}\n\n{table}\n\n{c}\n\n### Sub\n\n{d}\n\n## Two\n\n{e}\n"
        ((what, near),) = figures_of(page)
        assert what == "| a | b |"
        assert (not lacking(near)) == right, place
    for part in ("`python x.py`", "AMD EPYC", "seed 0", "commit\n0123abc"):
        ((_, near),) = figures_of(f"# Page\n\n{told.replace(part, '')}\n\n{table}\n")
        assert len(lacking(near)) == 1
    assert not figures_of(f"# Page\n\n{NOT_MEASURED}\n\n{table}\n")
    assert not figures_of(
        "# Page\n\n| a | b |\n|---|---|\n| `1.5 s` | arXiv 2106.14342 |\n| 2 | doi 10.3389/x |\n| `3.5` | |"
    )
    assert len(figures_of("# Page\n\n![A picture](x.png)\n")) == 1


def test_commits_of_figures_are_in_the_history():
    if not (ROOT / ".git").exists() or not (git := shutil.which("git")):
        pytest.skip("no history here")
    if subprocess.check_output([git, "rev-parse", "--is-shallow-repository"], cwd=ROOT, text=True).strip() == "true":
        pytest.skip("the history is cut")
    for page in PAGES:
        for match in COMMIT.finditer(page.read_text()):
            commit = match[1] or match[2]
            known = subprocess.run([git, "merge-base", "--is-ancestor", commit, "HEAD"], cwd=ROOT, capture_output=True)
            assert known.returncode == 0, f"{page.name}: {commit}"


def commands():
    """The commands on the pages, on one line each."""
    for page in PAGES:
        text = page.read_text()
        shown = re.findall(r"`([^`]*\b(?:eqprop|python)\s[^`]*)`", text)
        shown += [
            line for block in re.findall(r"^```bash[^\n]*\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()
        ]
        for each in shown:
            yield page, " ".join(each.split())


def test_commands_of_figures_still_exist():
    """The script, or the recipe."""
    count = 0
    for page, command in commands():
        if script := re.search(r"\bpython ((?:benchmarks|examples|tools)/\w+\.py)", command):
            count += 1
            assert (ROOT / script[1]).exists(), f"{page.name}: {command}"
        if recipe := re.search(r"\beqprop train ([a-z0-9]+(?:-[a-z0-9]+)*)(?= |$)", command):
            count += 1
            assert recipe[1] in RECIPES, f"{page.name}: {command}"
    assert count > 20
