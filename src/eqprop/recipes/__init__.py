"""Complete runs: a recipe is a typed function that returns an ``Experiment``; its parameters are its options."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from eqprop.errors import InputError
from eqprop.recipes import (
    cifar10,
    deep,
    general,
    hopfield_resnet,
    mnist,
    predictive,
    predictive_coding,
    resistive,
    small,
)
from eqprop.runs.recipe_files import load_function, suggestion
from eqprop.training.loop import Experiment

Recipe = Callable[..., Experiment]

DEFAULT = "digits"
RECIPES: dict[str, Recipe] = {
    name.replace("_", "-"): found
    for module in (small, mnist, resistive, cifar10, hopfield_resnet, deep, predictive_coding, predictive, general)
    for name, found in vars(module).items()
    if name.startswith(("digits", "mnist_", "cifar10_", "table", "sequence")) and found.__module__ == module.__name__
}


def find(name: str) -> Recipe:
    """A recipe by its name, or a user's own as ``file.py:function``.

    Raises:
        InputError: there is no recipe of that name (a similar one is suggested), or the file does not contain it.
    """
    if name in RECIPES:
        return RECIPES[name]
    path, colon, function = name.rpartition(":")
    if colon:
        return load_function(Path(path), function)
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise InputError(f"There is no file {name!r}: check the path; a recipe of your own is file.py:function.")
        raise InputError(f"{name!r} is a file of recipes: {suggestion(Path(name))}.")
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"There is no recipe {name!r}: {hint}`eqprop recipes` lists them.")
