"""A run that was trained before: its experiment, and its trained model."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eqprop import files, pretrained
from eqprop.checks import naming_options
from eqprop.devices.writing import Written
from eqprop.energy.spec import to_spec
from eqprop.errors import InputError
from eqprop.pretrained import Pretrained
from eqprop.recipes import RECIPES, Recipe, find
from eqprop.runs import recipe_files
from eqprop.runs.folder import NAME, OPTIONS_LATER, About, code_of, quoted, read
from eqprop.substrates import SUBSTRATES
from eqprop.training.checkpoint import restore_optimizer
from eqprop.training.loop import Experiment, Progress, load_own, load_weights

EMBEDDED = "digits"


def build(about: About, recipe: Recipe, file: Path | None = None) -> Experiment:
    """The experiment of a recipe with a run's options, seed and threads.

    Args:
        about: of the run.
        recipe: its recipe.
        file: of a user's own recipe.

    Raises:
        InputError: the options or the data do not fit.
    """
    if about.session.threads:
        torch.set_num_threads(about.session.threads)
    if about.session.precision == "64":
        torch.set_default_dtype(torch.float64)
    seed = about.options.get("seed", 0)
    with files.explained(f"seed {seed!r} is not a seed ({{}}): give a whole number from 0 on.", Exception):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
    with contextlib.ExitStack() as stack:
        if file is not None:
            stack.enter_context(recipe_files.importing_from(file.resolve().parent))
            stack.enter_context(recipe_files.telling(file.resolve()))
            stack.enter_context(inside(about.directory))
        stack.enter_context(naming_options(about.options))
        found = recipe(**about.options)
    if not isinstance(found, Experiment):
        returned = "nothing" if found is None else type(found).__name__
        raise InputError(f"The recipe {about.recipe!r} returned {returned}: it must return an Experiment.")
    return found


@contextlib.contextmanager
def inside(directory: str) -> Iterator[None]:
    """Within, a recipe's relative paths begin where the run was started, if that folder is still there."""
    before = os.getcwd()
    try:
        with contextlib.suppress(OSError):
            os.chdir(directory or before)
        yield
    finally:
        os.chdir(before)


class Kept:
    """A run that was trained before, as a later command finds it.

    Args:
        folder: of the run.
        trust_recipe: whether the code of a run that was not made here may run.
        data: where its data are now; "": where they were.

    Raises:
        InputError: it is no run, it is damaged, or it is a stranger's and names code or files without a word for it.
    """

    def __init__(self, folder: Path, trust_recipe: bool = False, data: str = "", ours: bool = False):
        self.folder = folder
        self.about, made_here = read(folder)
        known = made_here or ours
        self.file = code_of(folder, self.about, known or trust_recipe)
        options = dict(self.about.options)
        if data:
            if "data" not in options:
                raise InputError(f"The recipe {self.about.recipe!r} has no option 'data': run it from its own folder.")
            options["data"] = absolute(data)
        if not (known or trust_recipe) and own_substrate(self.about):
            raise InputError(
                f"The run {str(folder)!r} was not made by you on this machine, and its substrate "
                f"{options['substrate']!r} is code: pass --trust-recipe to run it."
            )
        if not (known or trust_recipe) and str(options.get("write_to", "")).endswith(".csv"):
            raise InputError(
                f"The run {str(folder)!r} was not made by you on this machine, and reads its device from "
                f"{options['write_to']!r}: pass --trust-recipe to read that file."
            )
        if not (data or known) and options.get("data", EMBEDDED) not in ("", EMBEDDED):
            raise InputError(
                f"The run {str(folder)!r} was not made by you on this machine, and its data are {options['data']!r}: "
                f"say where to read them, `--data {quoted(str(options['data']))}`."
            )
        self.recipe = self._recipe()
        self.about = replace(self.about, options=self._checked(options))

    def _recipe(self) -> Recipe:
        if self.file is not None:
            return recipe_files.load_function(self.file, self.about.name)
        if self.about.recipe not in RECIPES:
            raise InputError(f"The run's recipe {self.about.recipe!r} is none of this version's: upgrade eqprop.")
        return find(self.about.recipe)

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options as the recipe's parser takes them; of all of them, so that no new default changes a run."""
        from eqprop.runs.parsing import Parser  # not needed by a model that writes itself down

        parser = Parser(prog=f"eqprop train {self.about.recipe}")
        parser.add_recipe(self.about.recipe, self.recipe)
        later = OPTIONS_LATER[""] | OPTIONS_LATER.get(self.about.recipe, {})
        options = {name: value for name, value in later.items() if parser.has(name)} | options
        with files.explained(
            f"The options in {self.folder / 'run.json'} do not fit the recipe ({{}}).", Exception, wrap=True
        ):
            found = parser.check(options)
        if unsaid := sorted(found.keys() - options.keys()):
            raise InputError(
                f"{self.folder / 'run.json'} does not say {', '.join(unsaid)}, which the recipe takes: train again "
                "with this version, or go on with the version that the run was made by."
            )
        return found

    def build(self) -> Experiment:
        """The run's experiment, with initial weights."""
        return build(self.about, self.recipe, self.file)

    def compare(self, run: Experiment, sides: list[str], accept: bool) -> list[str]:
        """What differs in the data of the experiment, as it is built now, from those that the run was trained on.

        Raises:
            InputError: the classes do; something else does, and the user has not said to accept it; or the inputs would
                be prepared otherwise than in training.
        """
        if self.about.manifest is None:
            return []
        now = run.described()
        found = now.differences(self.about.manifest, sides)
        if list(now.classes) != list(self.about.manifest.classes):  # the network's outputs would mean others
            raise InputError(
                f"The data of {str(self.folder)!r} are not what it was trained on: {'; '.join(found)}. Name the "
                "classes as they were, or train again."
            )
        if found and not accept:
            raise InputError(
                f"The data of {str(self.folder)!r} are not what it was trained on: {'; '.join(found)}. Restore them, "
                "name their place with --data, or pass --accept-new-data."
            )
        if found and spec_of_inputs(run) != self.about.inputs:
            raise InputError(
                f"The data of {str(self.folder)!r} are accepted, but would be prepared by their own means, not by the "
                "training's: `eqprop predict` prepares new files as in training."
            )
        return found


def load(
    run: str | Path,
    checkpoint: str = "best",
    allow: Collection[Callable[..., Any]] = (),
    trust_recipe: bool = False,
) -> Pretrained:
    """The trained model of a run, on the CPU and in evaluation mode: ``eqprop.load("runs/mnist").predict(images)``.

    Args:
        run: its folder; or one that ``Pretrained.save_pretrained`` wrote.
        checkpoint: "best" or "last".
        allow: your own classes and functions that its network may name.
        trust_recipe: whether the code of a user's recipe or substrate in a run that you have not made here may run.
            It is needed only for networks that do not write themselves down without ``allow``; else nothing in a run's
            files is executed.

    Raises:
        InputError: there is no such model, a file is damaged, or it needs code that may not run.
    """
    folder = Path(run)
    if checkpoint != "best" and (folder / NAME).exists():
        load_own(folder, checkpoint, read(folder)[0].id)
    try:
        return pretrained.load(folder, checkpoint, allow)
    except InputError as error:
        if not (folder / NAME).exists() or not has_code(read(folder)[0]):
            raise
        reason = error
    try:
        kept = Kept(folder, trust_recipe)
        experiment = kept.build()
        load_epoch(experiment, kept, checkpoint)
    except InputError as error:
        raise InputError(f"{reason} By its recipe: {error}") from error
    return Pretrained(experiment.model.eval(), experiment.inputs, experiment.outputs)


def own_substrate(about: About) -> bool:
    """Whether a run is on a substrate that is not one of this package."""
    name = about.options.get("substrate", "ideal")
    return name not in SUBSTRATES and not str(name).startswith("eqprop.")


def has_code(about: About) -> bool:
    """Whether a run has a recipe or a substrate of a user."""
    return about.source is not None or own_substrate(about)


def load_epoch(run: Experiment, kept: Kept, name: str) -> int:
    """Loads the weights of a checkpoint into the model. Returns the number of epochs after which they were saved."""
    tensors, state = load_own(kept.folder, name, kept.about.id)
    load_weights(run.model, tensors)
    with files.explained(f"The checkpoint {name} of {kept.folder} is damaged ({{}}).", KeyError, TypeError, ValueError):
        return Progress.restored(state["progress"], run.epochs).epoch


def load_written(run: Experiment, kept: Kept, name: str) -> None:
    """Gives an optimiser that writes into devices the state of a checkpoint: what it has written until then."""
    if isinstance(run.optimizer, Written):
        tensors, state = load_own(kept.folder, name, kept.about.id)
        restore_optimizer(run.optimizer, tensors, state["optimizer"])


def spec_of_inputs(run: Experiment) -> Any:
    """How an experiment prepares its inputs, as JSON; ``None`` if that does not write itself down."""
    with contextlib.suppress(InputError):
        return json.loads(json.dumps(to_spec(run.inputs, "The inputs")))
    return None


def absolute(data: str) -> str:
    """A data source for ``run.json``: the absolute path of what exists, else as it is (a name on the hub)."""
    with contextlib.suppress(OSError):
        path = Path(data).expanduser()
        if data not in ("", EMBEDDED) and path.exists():
            return str(path.absolute())
    return data
