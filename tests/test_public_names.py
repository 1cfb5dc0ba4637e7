"""Every public name is documented: parameters, results, errors, sources; and the pages name only what is there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import types
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest

import eqprop

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "eqprop"
NAMESPACES = [
    "eqprop",
    *(f"eqprop.{n}" for n in ("energy", "settling", "learning", "models", "physics", "devices", "substrates")),
    *(f"eqprop.{n}" for n in ("diagnostics", "tasks", "testing", "errors", "report")),
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__main__.py"]

SOURCES = {
    ("Almeida", "1987"): None,  # conference proceedings without a DOI
    ("Anisetti", "2024"): "2208.08862",
    ("Bai", "2021"): "2106.14342",
    ("Brock", "2021"): "2101.08692",
    ("Detorakis", "2019"): "1806.07406",
    ("DeVries", "2017"): "1708.04552",
    ("Dillavou", "2023"): "2311.00537",
    ("Duchi", "2011"): None,  # Journal of Machine Learning Research 12
    ("Ernoult", "2019"): "1905.13633",
    ("Ernoult", "2020"): "2005.04168",
    ("Gokmen", "2016"): "10.3389/fnins.2016.00333",
    ("Gokmen", "2021"): "10.3389/frai.2021.699148",
    ("Gong", "2018"): "10.1038/s41467-018-04485-1",
    ("Gower", "2025"): "2505.02103",
    ("Hageman", "1981"): None,  # a book
    ("Holm", "1979"): None,  # Scandinavian Journal of Statistics 6
    ("Hutchinson", "1990"): "10.1080/03610919008812866",
    ("Høier", "2023"): "2302.01228",
    ("Høier", "2024"): "2402.08573",
    ("Joshi", "2020"): "10.1038/s41467-020-16108-9",
    ("Kerjan", "2026"): "2606.03584",
    ("Kim", "2019"): "10.1109/IEDM19573.2019.8993463",
    ("Kendall", "2020"): "2006.01981",
    ("Kolen", "1994"): "10.1109/ICNN.1994.374486",
    ("Laborieux", "2021"): "10.3389/fnins.2021.633674",
    ("Laborieux", "2022"): "2209.00530",
    ("Laborieux", "2024"): "2309.02214",
    ("Laydevant", "2021"): "2103.08953",
    ("Laydevant", "2024"): "10.1038/s41467-024-46879-4",
    ("Li", "2018"): "10.1109/VLSIT.2018.8510648",
    ("Luczak", "2022"): "10.1038/s42256-021-00430-y",
    ("Mishkin", "2015"): "1511.06422",
    ("Massar", "2024"): "2405.08467",
    ("Nandakumar", "2020"): "10.3389/fnins.2020.00406",
    ("O'Reilly", "1996"): "10.1162/neco.1996.8.5.895",
    ("Peters", "2025"): "2503.22810",
    ("Pineda", "1987"): "10.1103/PhysRevLett.59.2229",
    ("Rasch", "2021"): "10.1109/AICAS51828.2021.9458494",
    ("Rasch", "2024"): "10.1038/s41467-024-51221-z",
    ("Scellier", "2017"): "10.3389/fncom.2017.00024",
    ("Scellier", "2018"): "1808.04873",
    ("Scellier", "2022"): "2205.15021",
    ("Scellier", "2023"): "2312.15103",
    ("Scurria", "2026"): "2602.03670",
    ("Scellier", "2024"): "2402.11674",
    ("Szegedy", "2016"): "10.1109/CVPR.2016.308",
    ("Srinivasan", "2025"): "10.1109/ICEdge67252.2025.11412472",
    ("Stern", "2021"): "10.1103/PhysRevX.11.021045",
    ("Tang", "2018"): "10.1109/IEDM.2018.8614551",
    ("Wan", "2022"): "10.1038/s41586-022-04992-8",
    ("Welch", "1947"): "10.1093/biomet/34.1-2.28",
    ("Xie", "2003"): "10.1162/089976603762552988",
    ("Young", "1954"): "10.1090/S0002-9947-1954-0059635-7",
}
"""First author and year -> DOI or arXiv number."""

CITATION = re.compile(r"\b([A-Z][\w']+)(?: et al\.|(?:, [A-Z][\w']+)*,? & [A-Z][\w']+)?,? \(?((?:19|20)\d\d)\b(?!\.\d)")
NOUN_PHRASE = re.compile(r"(The|A|An|Another|All|Each|Every|Whether|How|Where|\(|[^.:]*(=|->)|[^.]*, \()")
"""How a first line begins that says what is returned; other first lines need a ``Returns`` section."""


# -- the top level --


def test_top_level_is_small_and_complete():
    assert len(eqprop.__all__) <= 46
    assert sorted(eqprop.__all__) == eqprop.__all__
    public = {n for n in dir(eqprop) if not n.startswith("_") and not isinstance(getattr(eqprop, n), types.ModuleType)}
    assert public == set(eqprop.__all__)


# -- docstrings --


def public_names(namespace: str) -> dict[str, object]:
    """What ``namespace`` offers: what a package re-exports, or what a module defines."""
    module = importlib.import_module(namespace)
    names = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    if hasattr(module, "__path__"):
        return {name: value for name, value in names.items() if not isinstance(value, types.ModuleType)}
    return {name: value for name, value in names.items() if getattr(value, "__module__", None) == namespace}


def documented() -> dict[str, object]:
    """Every public class and function of this package, once, by where it is defined."""
    found = {}
    for namespace in NAMESPACES:
        for value in public_names(namespace).values():
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return {name: value for name, value in sorted(found.items()) if name.startswith("eqprop")}


DOCUMENTED = documented()
CLASSES = {name: value for name, value in DOCUMENTED.items() if inspect.isclass(value)}
FUNCTIONS = {name: value for name, value in DOCUMENTED.items() if inspect.isfunction(value)}


def own_classes(cls: type) -> list[type]:
    return [each for each in cls.__mro__ if each.__module__.startswith("eqprop")]


def docstring(value: object) -> str:
    """Its own, with those of its bases and of their ``__init__``."""
    if not inspect.isclass(value):
        return inspect.getdoc(value) or ""
    parts = [each.__doc__ for each in own_classes(value)]
    parts += [vars(each)["__init__"].__doc__ for each in own_classes(value) if "__init__" in vars(each)]
    return "\n".join(inspect.cleandoc(part) for part in parts if part)


def is_named(parameter: str, text: str) -> bool:
    """Whether ``text`` has the parameter in a section (``name:`` or ``one, name:``), or in prose as ````name````."""
    return bool(re.search(rf"``{parameter}\b|^\s*(\w+, )*{parameter}(, \w+)*:", text, re.M))


def source(value: object) -> ast.stmt:
    return ast.parse(dedent(inspect.getsource(value))).body[0]


def commented_fields(cls: type) -> set[str]:
    """Fields with a docstring-comment of their own, as in ``Solution``."""
    found = set()
    for each in own_classes(cls):
        found |= {name for name, comment in assignments(source(each).body) if comment}
    return found


def assignments(body: list[ast.stmt]) -> list[tuple[str, bool]]:
    """The names that are assigned in a body, and whether a string follows each assignment."""
    found = []
    for statement, after in zip(body, [*body[1:], None], strict=True):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        comment = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        for target in targets if isinstance(statement, ast.Assign | ast.AnnAssign) else ():
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            found += [(name.id, comment) for name in names if isinstance(name, ast.Name)]
    return found


def raises(tree: ast.AST) -> bool:
    """Whether it raises an error of ours by itself."""
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    return any(getattr(getattr(call, "func", call), "id", "") in ("InputError", "NotSettledError") for call in calls)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstrings_name_every_parameter(name):
    value = DOCUMENTED[name]
    own = value.__doc__ or ""
    assert own, f"{name} has no docstring."
    assert not own.startswith(f"{value.__name__}("), f"{name} has the docstring that dataclass makes."
    if inspect.isclass(value) and issubclass(value, Exception | int):  # of these the names are the interface
        return
    given = [p for p in inspect.signature(value).parameters if p not in ("args", "kwargs")]  # as of nn.Module
    known = commented_fields(value) if inspect.isclass(value) else set()
    if missing := [p for p in given if p not in known and not is_named(p, docstring(value))]:
        pytest.fail(f"{name} does not document {missing}.")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_of_functions_tell_results_and_errors(name):
    function = FUNCTIONS[name]
    text = docstring(function)
    if function.__annotations__["return"] not in ("None", None) and "Returns:" not in text:
        assert NOUN_PHRASE.match(text), f"{name} does not say what it returns: {text[:80]}"
    assert "Raises:" in text or not raises(source(function)), f"{name} does not say what it raises."


@pytest.mark.parametrize("name", CLASSES)
def test_methods_are_documented_and_tell_errors(name):
    cls, text = CLASSES[name], docstring(CLASSES[name])
    for method in source(cls).body:
        if isinstance(method, ast.FunctionDef):
            told = next((d for each in cls.__mro__ if (d := getattr(vars(each).get(method.name), "__doc__", None))), "")
            assert told or method.name.startswith("_"), f"{name}.{method.name} has no docstring."
            known = "Raises" in told or "Raises:" in text
            assert known or not raises(method), f"{name}.{method.name} does not say what it raises."


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_constants_have_a_comment(namespace):
    comments = {}
    module = importlib.import_module(namespace)
    for path in sorted(PACKAGE.rglob("*.py")):
        comments |= {n: c or comments.get(n, False) for n, c in assignments(ast.parse(path.read_text()).body)}
    if hasattr(module, "__path__"):
        names = public_names(namespace)
    else:
        names = {n: None for n, _ in assignments(ast.parse(inspect.getsource(module)).body) if not n.startswith("_")}
    constants = [n for n, v in names.items() if not (inspect.isclass(v) or inspect.isfunction(v) or n == "annotations")]
    assert not [n for n in constants if not comments.get(n)]


# -- sources --


def strings(path: Path) -> list[str]:
    """The docstrings of a module, of all in it, and after its assignments; the module's first."""
    tree = ast.parse(path.read_text())
    found = [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    first = ast.get_docstring(tree, clean=False) or ""
    return [first, *found]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_citations_have_their_source(path):
    package = strings(path.parent / "__init__.py")[0]
    first, *found = strings(path)
    for text in found:
        for author, year in CITATION.findall(" ".join(text.split())):
            source = SOURCES.get((author, year), "unknown")
            assert source != "unknown", f"{author} {year}: give its DOI or arXiv number here and in the docstring."
            assert source is None or source in text + first + package, f"{author} {year} is cited without {source}."


# -- pages --

EXTERNAL = {
    *("torch", "nn", "safetensors", "record", "backward", "parameter", "coupling", "network", "model"),
    *("Linear", "Dataset", "DataLoader"),
    *("ClassLabel", "JournalFileBackend", "JournalFileOpenLock"),
}
"""Roots of names on the pages that belong to other libraries or to the reader's program."""
EXAMPLES = "".join(path.read_text() for path in sorted((ROOT / "examples").glob("*.py")))
FILES = re.compile(r"\.(py|md|html|json|csv|png|txt|safetensors|parquet|toml|npz|journal|cff)$")


@cache
def offered() -> dict[str, object]:
    names: dict[str, object] = {}
    for namespace in [*NAMESPACES, "eqprop.training.loop", "eqprop.training.memory", "eqprop.recipes"]:
        found = vars(importlib.import_module(namespace))
        names |= {n: v for n, v in found.items() if n not in names or not isinstance(v, types.ModuleType)}
    return names | {"main": importlib.import_module("eqprop.cli").main}


def attribute(value: object, name: str) -> object | None:
    """The attribute, or ``None`` where there is none; fields and what ``__init__`` assigns count by their name."""
    if hasattr(value, name):
        return getattr(value, name)
    for each in own_classes(value) if inspect.isclass(value) else ():
        if name in vars(each).get("__annotations__", {}) or re.search(rf"\bself\.{name}\b", inspect.getsource(each)):
            return name
    return None


def resolve(dotted: str, call: bool) -> bool:
    """Whether the name is in a namespace, or in case of a ``call`` that of a method of a public class."""
    first, *rest = dotted.split(".")
    if call and not rest and any(hasattr(each, first) for each in CLASSES.values()):
        return True
    if first in ("eqprop", "ep"):
        value = eqprop
    elif first in offered():
        value = offered()[first]
    else:
        try:
            value = importlib.import_module(f"eqprop.{first}")
        except ImportError:
            return False
    for name in rest:
        if isinstance(value, types.ModuleType) and not hasattr(value, name):
            try:
                importlib.import_module(f"{value.__name__}.{name}")
            except ImportError:
                return False
        value = attribute(value, name)
        if value is None:
            return False
    return True


def spans(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_what_is_there(page):
    missing = []
    own = set(re.findall(r"^(?:def|class) (\w+)", page.read_text() + EXAMPLES, re.M))
    for span in spans(page):
        if re.fullmatch(r"[\w/]+\.py", span) and "/" in span:
            if not any((root / span).exists() for root in (ROOT, PACKAGE)):
                missing.append(span)
            continue
        found = re.match(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(\(|$)", span)
        if not found or FILES.search(found[1]):
            continue
        name, call = found.groups()
        looks_ours = call or "." in name or re.match(r"[A-Z]\w*[a-z]", name)
        if looks_ours and name.split(".")[0] not in EXTERNAL | own and not resolve(name, bool(call)):
            missing.append(span)
    assert not missing
