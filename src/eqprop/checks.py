"""Arguments are held to their annotations where they are given, by one mechanism for all public classes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from inspect import signature
from numbers import Complex, Integral, Real
from operator import ge, gt, le, lt
from textwrap import shorten
from types import ModuleType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from eqprop.errors import InputError

C = TypeVar("C", bound=Callable[..., Any])
NUMBERS: dict[object, Any] = {int: Integral, float: Real, complex: Complex}
"""A parameter annotated by one of these takes finite numbers, and no truth values."""
Count = Annotated[int, ">= 1"]
Natural = Annotated[int, ">= 0"]
Positive = Annotated[float, "> 0"]
NonNegative = Annotated[float, ">= 0"]
Fraction = Annotated[float, ">= 0", "<= 1"]
Bound = Annotated[float, ">= -inf"]
"""Any number, also an infinite one."""
SIGNS = {">": gt, ">=": ge, "<": lt, "<=": le}


def checked(function: C) -> C:
    """The function or the class, made to refuse what its annotations do not allow, before anything else runs.

    Raises:
        InputError: on a call; names the parameter, the value and what is wanted.
    """
    if isinstance(function, type):
        # The fields of a dataclass may be annotated in the modules of its bases.
        source: Any = function if "__dataclass_fields__" in vars(function) else vars(function)["__init__"]
        function.__init__ = _checked(function.__init__, source)  # type: ignore[misc]
        return function
    return _checked(function, function)


def _checked(function: C, source: Any) -> C:
    names = list(signature(function).parameters)
    iterables = "Iterable" in str(signature(function))

    @cache  # made when first called: annotations may name what comes later
    def kinds() -> dict[str, tuple[Any, Callable[[Any], bool]]]:
        hints = get_type_hints(source, include_extras=True)
        return {name: (hints[name], test_of(hints[name])) for name in names if name in hints}

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if iterables:  # an iterator is gone once its elements are looked at
            arguments = tuple(list(each) if isinstance(each, Iterator) else each for each in arguments)
            options = {name: list(each) if isinstance(each, Iterator) else each for name, each in options.items()}
        known = kinds()
        for name, value in (*zip(names, arguments, strict=False), *options.items()):
            if name in known and not known[name][1](value):
                owner = type(arguments[0]) if function.__name__ == "__init__" else function
                error = InputError(f"{owner.__name__}: {name} must be {described(value, known[name][0])}.")
                error.argument = name, value
                raise error
        return function(*arguments, **options)

    return call  # type: ignore[return-value]


@contextmanager
def naming_options(options: Mapping[str, Any]) -> Iterator[None]:
    """An error about an argument that is the value of an option names it as it is typed."""
    try:
        yield
    except InputError as error:
        text = str(error)
        if error.argument is not None and options.get(error.argument[0], error) is error.argument[1]:
            raise InputError(f"--{text.partition(': ')[2]}") from error
        if options.get(text.split(" ")[0]) is not None:
            raise InputError(f"--{text}") from error
        raise


def described(value: Any, kind: Any) -> str:
    """What is wanted, and what is there: of a list or a dict the first part that is wrong."""
    parts: list[Any] = [{key: each} for key, each in value.items()] if isinstance(value, dict) else []
    parts += [[each] for each in value] if isinstance(value, list) else []
    wrong = next((part for part in parts if not test_of(kind)(part)), value)
    there = shorten(re.sub(" at 0x[0-9a-f]+", "", repr(wrong)), 100, placeholder=" ...")
    there = f"the class {wrong.__name__}" if isinstance(wrong, type) else there
    there += "" if wrong is None or isinstance(wrong, type) else f" ({type(wrong).__name__})"
    wanted = re.sub(
        r"\b([^\W\d]\w*\.)+(?=\w)", "", kind.__name__ if kind in NUMBERS or not get_args(kind) else str(kind)
    )
    wanted = re.sub(r"Annotated\[(\w+), ([^]]*)\]", lambda m: f"{m[1]} {m[2]}".replace("'", ""), wanted)
    wanted = re.sub(r"^Optional\[(.*)\]$", r"\1 | None", wanted)
    return f"{wanted.replace('float', 'finite float').replace('finite float >= -inf', 'float')}, not {there}"


def check_classes(*namespaces: ModuleType, but: Collection[type] = ()) -> None:
    """Makes every class of this package that the namespaces offer ``checked``, in place.

    Args:
        namespaces: modules; each of their attributes that is a class is offered.
        but: classes that are left as they are.
    """
    offered = {kind for space in namespaces for kind in vars(space).values() if isinstance(kind, type)}
    for owner in {next(base for base in kind.__mro__ if "__init__" in vars(base)) for kind in offered - {*but}}:
        if owner.__module__.startswith("eqprop."):
            checked(owner)


@cache
def test_of(kind: Any) -> Callable[[Any], bool]:
    """Whether a value is what the annotation says, elements included. ``Any`` and type variables allow everything."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or isinstance(kind, TypeVar):
        return lambda value: True
    if number := NUMBERS.get(kind):  # finite ones, whose difference with themselves is 0
        return lambda v: (type(v) is kind or (isinstance(v, number) and type(v) is not bool)) and v - v == 0
    if origin is None:
        return lambda value: isinstance(value, kind)
    if origin is Literal:
        return lambda value: any(type(value) is type(each) and value == each for each in inner)
    if origin is Callable:
        return callable
    tests = [test_of(each) for each in inner if each is not ...]
    if origin is Annotated:
        limits = [(SIGNS[sign], float(at)) for sign, at in map(str.split, kind.__metadata__)]
        infinite = kind == Bound
        return lambda value: (
            (infinite and isinstance(value, float) and math.isinf(value))
            or (tests[0](value) and all(sign(value, at) for sign, at in limits))
        )
    if origin in (Union, UnionType):
        return lambda value: any(test(value) for test in tests)
    if origin is tuple and ... not in inner:
        return lambda v: (
            isinstance(v, tuple)
            and len(v) == len(tests)
            and all(test(each) for test, each in zip(tests, v, strict=True))
        )
    if issubclass(origin, Mapping):
        return lambda value: isinstance(value, origin) and all(tests[0](k) and tests[1](v) for k, v in value.items())
    return lambda value: isinstance(value, origin) and not isinstance(value, str) and all(map(tests[0], value))
