"""The documentation's structure, without building it: `mkdocs build --strict` does the rest in `.ci/run`."""

import importlib
import re
from pathlib import Path

import pytest
from test_public_names import NAMESPACES, public_names

ROOT = Path(__file__).parents[1]
pytest.importorskip("mkdocs")


@pytest.fixture
def site(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("site_of_docs")


def test_each_public_name_has_a_place_in_the_api(site):
    assert set(site.NAMESPACES) == set(NAMESPACES)
    described = {}
    for namespace in NAMESPACES:
        page = site.api(namespace)
        for name in public_names(namespace):
            assert re.search(rf"(::: [\w.]*\.{name}$|\[{name}\]\[|^\| `{name}` )", page, re.M), f"{namespace}.{name}"
        for home in re.findall(r"^::: (.*)$", page, re.M):
            assert described.setdefault(home, namespace) == namespace


def test_each_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs"))
        assert f"- {name}" in nav or f": {name}" in nav, name


QUESTIONS = {
    "How do I load a run?": "export",
    "Which estimator should I use?": "choose",
    "Which beta should I use?": "choose",
    "Why does it not settle?": "settling",
    "What does a cosine of 0.6 mean?": "check",
    "How do I use my own data?": "data",
    "Is it backpropagation?": "estimators",
    "Can it run on two machines?": "runs",
    "How do I add a device?": "devices",
    "How do I cite it?": "estimators",
}
"""Question -> the page that says more."""


def test_questions_of_newcomers_have_an_answer_and_a_page():
    text = (ROOT / "docs" / "how-to" / "questions.md").read_text()
    answers = {each.split("\n")[0]: each for each in re.split(r"^## ", text, flags=re.M)[1:]}
    assert list(answers) == list(QUESTIONS)
    for question, page in QUESTIONS.items():
        assert re.search(rf"\]\([^)]*\b{page}\.md", answers[question]), question
