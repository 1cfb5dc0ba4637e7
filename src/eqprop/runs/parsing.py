"""Options: from the typed signatures of recipes and commands, by jsonargparse."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from eqprop.errors import InputError


class Parser(ArgumentParser):
    """A parser whose errors are one line, with exit status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(f"{' '.join(str(message).split())} (see `{self.prog} --help`)")

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The options that were given, with defaults.

        Raises:
            InputError: an option is unknown (a similar one is suggested), of another type, or not finite.
        """
        known = {name for name in self._option_string_actions if name.startswith("--")}
        words = [self._known(word, known) for word in arguments]
        try:
            options: dict[str, Any] = self.parse_args(words).as_dict()
        except (RecursionError, OverflowError, MemoryError) as error:
            self.error(f"an option cannot be read ({type(error).__name__})")
        check_finite(options)
        return options

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


def check_finite(options: Mapping[str, Any]) -> None:
    """Raises InputError for a number that is not finite, also in a list."""
    for name, value in options.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, float) and not math.isfinite(each):
                raise InputError(f"--{name} {each} is not a finite number.")
            if isinstance(each, int) and not isinstance(each, bool) and abs(each) >= 2**63:
                raise InputError(f"--{name} {each} is too large: give less than 2**63.")
            if isinstance(each, str) and "\0" in each:
                raise InputError(f"--{name} {each!r} holds a null character.")
