"""Options: from the typed signatures of recipes and commands, by jsonargparse."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from eqprop.checks import naming_options
from eqprop.errors import InputError
from eqprop.recipes import DEFAULT, RECIPES, find
from eqprop.runs.folder import Session
from eqprop.runs.parsing import Parser

SHELLS = ("bash", "zsh", "tcsh")


def named(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The recipe or run in the first argument, or the default one; and the options."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], list(arguments[1:])
    return DEFAULT, list(arguments)


def session_of(options: dict[str, Any]) -> Session:
    """The settings of the session, taken out of ``options``."""
    own = {each.name: options.pop(each.name) for each in fields(Session)}
    with naming_options(own):
        return Session(**own)


def completion(arguments: Sequence[str]) -> int:
    """A script that completes commands, recipes and options."""
    from eqprop.cli.training import train_parser
    from eqprop.cli.using import PARSERS

    parser = Parser(prog="eqprop completion", description="A script that completes commands in a shell.")
    parser.add_argument("shell", type=str, help=f"one of {', '.join(SHELLS)}")
    shell = parser.read(arguments)["shell"]
    if shell not in SHELLS:
        raise InputError(f"There is no completion for {shell!r}: choose one of {', '.join(SHELLS)}.")
    import shtab

    whole = Parser(prog="eqprop", description="Train networks by equilibrium propagation.")
    commands = whole.add_subcommands(required=False)
    trains = Parser(prog="eqprop train", description="Train a recipe.")
    commands.add_subcommand("train", trains)
    recipes = trains.add_subcommands(required=False, dest="recipe")
    for name in RECIPES:
        recipes.add_subcommand(name, train_parser(name, find(name)))
    for name, build in PARSERS.items():
        commands.add_subcommand(name, build())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(shtab.complete(whole, shell=shell))
    return 0
