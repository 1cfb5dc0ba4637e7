"""Every Python snippet of the README and the docs runs as it stands."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPETS = {page: re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S) for page in PAGES}
CASES = [(page, number) for page, codes in SNIPPETS.items() for number in range(len(codes))]


@pytest.mark.parametrize(("page", "number"), CASES, ids=[f"{page.name}-{number + 1}" for page, number in CASES])
def test_snippets_run(page, number, tmp_path, monkeypatch):
    """In a folder of its own, which has the page's snippets up to this one that begin with ``# FILE.py`` as files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQPROP_CACHE", str(tmp_path / "cache"))
    code = SNIPPETS[page][number]
    for each in SNIPPETS[page][: number + 1]:
        if named := re.match(r"# (\w+\.py)\n", each):
            Path(named[1]).write_text(each)
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


def test_every_fence_says_a_language_that_is_known():
    for page in PAGES:
        opening = re.findall(r"^```(\w+)", page.read_text(), re.M)
        assert set(opening) <= {"python", "bash"}, page.name


def test_code_of_tutorials_runs_when_the_site_is_built():
    for page in (ROOT / "docs" / "tutorials").glob("*.md"):
        assert all('exec="true"' in line for line in re.findall(r"^```\w.*$", page.read_text(), re.M)), page.name


def test_notebooks_are_those_of_the_tutorials(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    notebooks = importlib.import_module("notebooks")
    made = {f"{page.stem}.ipynb": notebooks.notebook(page) for page in notebooks.TUTORIALS.glob("*.md")}
    kept = {path.name: path.read_text() for path in notebooks.NOTEBOOKS.glob("*.ipynb")}
    assert kept == made, "run `python tools/notebooks.py`"


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            made = re.search(
                r"(^|/)(reference/)?(api/[\w.]+|cli)\.md$", link
            )  # when the site is built, which checks them
            assert made or (page.parent / link).exists(), f"{page.name} links to {link}"
