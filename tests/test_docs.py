"""Every Python snippet of the README and the docs runs as it stands."""

import re
from pathlib import Path

import pytest

import eqprop as ep

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    (f"{page.name}-{number}", code)
    for page in PAGES
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S), start=1)
]


@pytest.mark.parametrize("code", [code for _, code in SNIPPETS], ids=[name for name, _ in SNIPPETS])
def test_snippets_run(code):
    if "ep.graph(" in code and not hasattr(ep, "graph"):
        pytest.skip("this version has no graph(nodes, edges)")
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


def test_every_fence_says_a_language_that_is_known():
    for page in PAGES:
        opening = re.findall(r"^```(.+)$", page.read_text(), re.M)
        assert set(opening) <= {"python", "bash"}, page.name


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
