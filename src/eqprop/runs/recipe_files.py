"""Recipes of a user's own: a function in a Python file, of which a run keeps a copy."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import inspect
import sys
import sysconfig
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from eqprop.errors import EqpropError, InputError
from eqprop.files import explained, one_line
from eqprop.training.stopping import Stopped

KEPT = "recipe"
"""The folder in a run that holds the copies."""


@dataclass(frozen=True)
class Source:
    """Where the code of a recipe came from.

    Attributes:
        path: the file, absolute, as it was.
        files: path relative to the file's folder -> SHA-256 of the content: the file, and what it imports from there.
    """

    path: str
    files: Mapping[str, str]


def load_function(file: Path, name: str) -> Callable[..., Any]:
    """The function ``name`` of a Python file, which may import files beside it.

    Raises:
        InputError: there is no such file or function, or the file cannot be run; it names the place in the file. Or
            its name is that of another module, which hides its options.
    """
    if not file.is_file():
        raise InputError(f"There is no file {str(file)!r} to take the recipe {name!r} from: check the path.")
    if file.suffix != ".py":
        raise InputError(f"{str(file)!r} is not a Python file: a recipe of your own is file.py:function.")
    module = _run(file)
    found = getattr(module, name, None)
    if not callable(found) or isinstance(found, type):
        raise InputError(f"{str(file)!r} has no function {name!r}: {suggestion(file, module)}.")
    if getattr(sys.modules.get(file.stem), "__file__", None) != module.__file__ and takes_more(found):
        raise InputError(
            f"{str(file)!r}: {file.stem!r} is another module too, and the options behind ** would be looked for there: "
            "rename the file."
        )
    return found


def takes_more(function: Callable[..., Any]) -> bool:
    """Whether it takes options that its signature does not name."""
    with contextlib.suppress(TypeError, ValueError):
        return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(function).parameters.values())
    return False


def suggestion(file: Path, module: ModuleType | None = None) -> str:
    """What a user may have meant by the name of a file."""
    module = _run(file) if module is None else module
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, type) and getattr(value, "__module__", "") == module.__name__
    ]
    return "it has " + (", ".join(f"{file}:{name}" for name in own if not name.startswith("_")) or "no function")


_RECIPES: weakref.WeakSet[ModuleType] = weakref.WeakSet()
"""The modules that recipes are taken from."""


def _run(file: Path) -> ModuleType:
    file = file.resolve()
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with importing_from(file.parent), telling(file), _under(file, module):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _under(file: Path, module: ModuleType) -> Iterator[None]:
    """Puts a recipe's module where readers of its options and annotations look for it; not after an error.

    A name under which something else is, or would be, imported is left alone.
    """
    before = sys.modules.get(file.stem)
    if before in _RECIPES or (before is None and not _is_elsewhere(file)):
        sys.modules[file.stem] = module
        _RECIPES.add(module)
    try:
        yield
    except BaseException:
        if sys.modules.get(file.stem) is module:
            del sys.modules[file.stem]
            if before is not None:
                sys.modules[file.stem] = before
        raise


def _is_elsewhere(file: Path) -> bool:
    """Whether a module of the file's name can be imported from another folder."""
    others = [place for place in sys.path if Path(place or ".").resolve() != file.parent]
    return file.stem in sys.builtin_module_names or bool(importlib.machinery.PathFinder.find_spec(file.stem, others))


@contextlib.contextmanager
def telling(file: Path) -> Iterator[None]:
    """An error of a user's code as an InputError in one line, with its place in the user's files."""
    try:
        yield
    except (EqpropError, KeyboardInterrupt, Stopped):
        raise
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}" if error.filename else str(file)
        raise InputError(f"{place}: {error.msg}: the recipe is not valid Python.") from error
    except BaseException as error:  # also sys.exit() in a user's file
        frames = traceback.extract_tb(error.__traceback__)
        own = [each for each in frames if Path(each.filename).is_relative_to(file.parent)]
        text = one_line(error)
        place = f"{own[-1].filename}, line {own[-1].lineno}" if own else str(file)
        raise InputError(f"{place}: {type(error).__name__}: {text} (EQPROP_TRACEBACK=1 shows all of it)") from error


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Within, files in ``folder`` can be imported, as those beside a script; modules of their names are forgotten."""
    for file in folder.glob("*.py"):
        known = getattr(sys.modules.get(file.stem), "__file__", None)
        if known and Path(known).parent != folder and not _installed(Path(known)):
            del sys.modules[file.stem]
    before, write = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True  # the folder stays as it is
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = before, write


def _installed(path: Path) -> bool:
    """Whether a file belongs to Python, to an installed package or to this one."""
    places = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return any(path.is_relative_to(str(place)) for place in (*places, Path(__file__).parents[1]))


def gather(file: Path) -> dict[str, bytes]:
    """The content of a recipe's file and of the files beside it that it has imported, by relative path.

    Raises:
        InputError: one of them cannot be read.
    """
    file = file.resolve()
    used = {file}
    for module in list(sys.modules.values()):
        place = getattr(module, "__file__", None)
        path = Path(place).resolve() if place else file
        if path.is_relative_to(file.parent) and path.suffix == ".py" and path.is_file() and not _installed(path):
            used.add(path)
    with explained("Cannot read the recipe's files ({}).", OSError):
        return {str(path.relative_to(file.parent)): path.read_bytes() for path in sorted(used)}
