"""Options: from the typed signatures of recipes and commands, by jsonargparse."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from eqprop.errors import InputError, explained

PLACES = ("out", "from", "run", "runs", "paths")
"""Options and arguments that name files, in which a leading ~ is the user's home, as a shell has it in some places."""
WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class Parser(ArgumentParser):
    """A parser whose errors are one line, with exit status 2.

    Attributes:
        given: the values that are parsed, by the names of their options.
    """

    given: Mapping[str, Any] = MappingProxyType({})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(str(message).split())
        if found := re.match(r'Parser key "(\w+)":', text):
            kind = next((getattr(each, "_typehint", None) for each in self._actions if each.dest == found[1]), None)
            value = self.given.get(found[1])
            text = f"--{found[1]} must be {words(kind)}, not {value!r:.200}"
        raise InputError(f"{text} (see `{self.prog} --help`)")

    def add_recipe(self, name: str, recipe: Callable[..., Any], *more: type) -> None:
        """Adds the options of a recipe, and those of other classes.

        Raises:
            InputError: an option cannot be read from the command line, or two have one name.
        """
        unread = f"The options of the recipe {name!r} cannot be read ({{}}): give each a type, and a name of its own."
        with explained(unread, Exception):
            self.add_function_arguments(recipe)
            for kind in more:
                self.add_class_arguments(kind)

    def has(self, name: str) -> bool:
        """Whether there is such an option."""
        return f"--{name}" in self._option_string_actions

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The options that were given, with defaults.

        Raises:
            InputError: an option is unknown (a similar one is suggested), of another type, or not finite.
        """
        known = {name for name in self._option_string_actions if name.startswith("--")}
        words = [self._known(word, known) for word in arguments]
        given = self.given = {}
        for word, following in pairwise([*words, ""]):
            name, equals, value = word.partition("=")
            if name.startswith("--"):  # not a value that is spelled like an option
                given[name.removeprefix("--")] = value if equals else following
        try:
            options: dict[str, Any] = self.parse_args(words).as_dict()
        except (RecursionError, OverflowError, MemoryError) as error:
            self.error(f"an option cannot be read ({type(error).__name__})")
        self._check_finite(options)
        self._check_written(options)
        for name in options.keys() & {*PLACES}:
            options[name] = self._place(name, options[name])
        return options

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """These options, as the parser takes them. Raises InputError as ``read`` does."""
        self.given = options
        found: dict[str, Any] = self.parse_object(dict(options)).as_dict()
        self._check_finite(found)
        return found

    def _known(self, word: str, known: set[str]) -> str:
        """An option with underscores for dashes. Raises InputError for one that does not exist."""
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name == "--":
            return word
        plain = "--" + name[2:].replace("-", "_")
        if plain not in known:
            near = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
            self.error(f"there is no option {name}{f': did you mean {near[0]}?' if near else ''}")
        return f"{plain}{equals}{value}"

    def _place(self, name: str, value: Any) -> Any:
        """A path or paths with the user's home for a leading ~. Raises InputError for an empty argument."""
        if isinstance(value, list):
            return [self._place(name, each) for each in value]
        if value == "" and not self.has(name):
            self.error(f"{name} is empty: name a place")
        return os.path.expanduser(value) if isinstance(value, str) else value

    def _check_written(self, options: Mapping[str, Any]) -> None:
        """Raises InputError for numbers that YAML reads otherwise than people: 010 as 8, 1:30 as 90, 0x10 as 16."""
        for name, text in self.given.items():
            value = options.get(name)
            several = isinstance(value, list | tuple)
            texts = text.strip(" []()").split(",") if several else [text]
            for each, written in zip(value if several else [value], texts, strict=False):  # type: ignore[arg-type]
                if type(each) in (int, float) and as_read(written) != each:
                    self.error(f"--{name} must be written in decimal digits, not as {written.strip()!r:.200}")

    def _check_finite(self, options: Mapping[str, Any]) -> None:
        """Raises InputError for a number that is not finite, also in a list."""
        for name, value in options.items():
            shown = f"--{name}" if f"--{name}" in self._option_string_actions else name
            for each in value if isinstance(value, list | tuple) else [value]:
                if isinstance(each, float) and not math.isfinite(each):
                    raise InputError(f"{shown} {each} is not a finite number.")
                if isinstance(each, int) and not isinstance(each, bool) and abs(each) >= 2**63:
                    raise InputError(f"{shown} {each} is too large: give less than 2**63.")
                if isinstance(each, str) and "\0" in each:
                    raise InputError(f"{shown} {each!r} holds a null character.")


def as_read(text: str) -> float | None:
    """The number that a text is for people; ``None`` if it is none."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def words(kind: Any) -> str:
    """What an option of a type takes, for people."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, UnionType):
        return " or ".join(words(each) for each in inner if each is not NoneType)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list like [1, 2], each {words(inner[0])}"
    return WORDS.get(kind, getattr(kind, "__name__", "of its type"))
