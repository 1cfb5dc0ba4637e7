"""Trained models as files, in the hub's layout: ``model.safetensors`` has the weights, ``config.json`` all else.

``config.json`` tells the size and the SHA-256 of its weights, and is replaced when they are on the disk; until they
have their name, they are found under another. So a process that is killed leaves the old model or the new one.
Nothing in a file is executed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from eqprop import files
from eqprop.checks import checked
from eqprop.energy import Network
from eqprop.energy.spec import from_spec, to_spec
from eqprop.energy.substitution import with_values
from eqprop.errors import InputError
from eqprop.files import explained, write_bytes_atomic, write_text_atomic
from eqprop.learning import Equilibrium, Estimator, Record
from eqprop.tasks import Classes, Inputs, Outputs, Task
from eqprop.tasks.formats import Answer

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
LARGEST_CONFIG = 2**24
"""Bytes."""
BATCH = 200
"""Examples of a step, as in an evaluation: other batches may round differently."""
KINDS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Of weights."""
CARD = """
---
{{ card_data }}
---

A network that settles, trained with eqprop.

```python
import eqprop

model = eqprop.Pretrained.from_pretrained("user/name")
model.predict(examples)
```
"""


class Pretrained(
    nn.Module, ModelHubMixin, library_name="eqprop", tags=["equilibrium-propagation"], model_card_template=CARD
):
    """A trained model with what it takes and gives; on the hub by ``from_pretrained`` and ``push_to_hub``.

    >>> eqprop.Pretrained(model).save_pretrained("digits")
    >>> eqprop.Pretrained.from_pretrained("digits").predict(examples)

    Args:
        model: the network with its estimator.
        inputs: how examples are read and prepared; ``None``: they are arrays of the network's input shape.
        outputs: what the scores mean; ``None``: answers are the scores.

    Raises:
        InputError: an argument is of another kind.
    """

    @checked
    def __init__(self, model: Equilibrium, inputs: Inputs | None = None, outputs: Outputs | None = None):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, x: Any) -> Tensor:
        """The scores of prepared inputs, (batch, ...), without gradients: to train, use ``model``.

        Args:
            x: the network's data.

        Raises:
            InputError: it does not fit.
        """
        record = Record()
        with torch.no_grad():
            self.model(x, record=record)
        assert record.scores is not None
        return record.scores

    def predict(self, raw: Sequence[Any]) -> list[Answer]:
        """The answer of each raw example, without dropout: a value for each name in ``outputs.header``.

        Args:
            raw: examples as ``inputs.read`` gives them; without ``inputs`` arrays of the input's shape.

        Raises:
            InputError: one of them does not fit.
        """
        training, answers = self.training, list[Answer]()
        self.eval()
        try:
            for first in range(0, len(raw), BATCH):
                answers += self._answers(raw[first : first + BATCH])
        finally:
            self.train(training)
        return answers

    def save_into(self, folder: str | Path) -> None:
        """Write the model's two files into a folder, instead of those there. A reader finds the old ones or these.

        Weights that are computed from others by a parametrisation, ``weight_norm`` or the like are written as values.

        Raises:
            InputError: a part of the model does not write itself down, or a file cannot be written.
        """
        folder = Path(folder)
        model = with_values(self.model)
        config = self._config(model)
        shared = config["network"]["shared"]
        tensors = {name: value for name, value in model.state_dict().items() if own_name(name) not in shared}
        if other := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
            raise InputError(f"The model's state {other[0]!r} is no tensor: it cannot be written.")
        plain = {
            name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        data = safetensors.torch.save(plain, {"format": "pt"})
        code = files.sha256(data)
        strides = {
            name: list(value.stride())
            for name, value in tensors.items()
            if value.stride() != contiguous(value.shape) and without_gaps(value.shape, value.stride())
        }
        config["weights"] = {"bytes": len(data), "sha256": code, "strides": strides}
        with explained(f"Cannot write the model in {str(folder)!r} ({{}}): make room, or choose a folder.", OSError):
            folder.mkdir(parents=True, exist_ok=True)
            waiting = folder / waiting_name(code)
            write_bytes_atomic(waiting, data)
            write_text_atomic(folder / CONFIG, json.dumps(config, indent=1, allow_nan=False) + "\n")
            os.replace(waiting, folder / WEIGHTS)
            for left in (*folder.glob(f".*{WEIGHTS}.*"), *folder.glob(f".{CONFIG}.*.tmp")):  # by killed processes
                left.unlink(missing_ok=True)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save_into(save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        allow: Collection[Callable[..., Any]] = (),
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """The model in a folder, or of a repository of the hub, on the CPU and in evaluation mode.

        Args:
            pretrained_model_name_or_path: the folder, or the repository's "user/name".
            allow: your own classes and functions that it may name; nothing in the files is executed.
            revision, token, cache_dir, force_download, local_files_only: as for ``huggingface_hub.hf_hub_download``.

        Raises:
            InputError: there is no such model, a file is damaged, or it names a class that is not allowed.
        """
        folder = Path(pretrained_model_name_or_path)
        with explained(f"Cannot read {str(folder)!r} ({{}}).", OSError):
            if folder.exists():
                return cls._read(folder, allow)
        options: dict[str, Any] = {"token": token, "cache_dir": cache_dir}
        options |= {"force_download": force_download, "local_files_only": local_files_only}
        name = str(pretrained_model_name_or_path)
        with explained(f"There is no folder {name!r}, and no such model on the hub ({{}}).", Exception):
            config = Path(hf_hub_download(name, CONFIG, revision=revision, **options))
            hf_hub_download(name, WEIGHTS, revision=config.parent.name, **options)  # of the same commit
        return cls._read(config.parent, allow)

    @classmethod
    def _read(cls, folder: Path, allow: Collection[Any]) -> Self:
        failed = ""
        while not (data := (config := Config.read(folder)).weights()):  # as a training process may replace both files
            if failed == config.sha256:
                raise InputError(
                    f"The weights {folder / WEIGHTS} are missing, or not those that {config.file.name} tells of: copy "
                    "both again, or write them anew from a checkpoint."
                )
            failed = config.sha256
        damaged = f"The weights {folder / WEIGHTS} are damaged ({{}})."
        with explained(damaged, SafetensorError, ValueError, KeyError, TypeError):
            tensors = safetensors.torch.load(data)
        return cls._filled(config, allow, tensors)

    @classmethod
    def _built(cls, config: Config, allow: Collection[Any], device: str) -> Self:
        with torch.random.fork_rng([]), torch.device(device), explained(f"{config.file}: {{}}.", Exception):
            network = Network.from_spec(config.network, allow)
            estimator, inputs, outputs = (
                from_spec(each, allow) for each in (config.estimator, config.inputs, config.outputs)
            )
            if not isinstance(estimator, Estimator):
                raise InputError(f"The estimator in {config.file} is a {type(estimator).__name__}.")
            return cls(Equilibrium(network, estimator, config.on_unsettled), inputs, outputs).eval()

    @classmethod
    def _filled(cls, config: Config, allow: Collection[Any], tensors: Mapping[str, Tensor]) -> Self:
        """The model with these weights."""
        shared = config.network["shared"]
        shape = cls._built(config, allow, "meta")  # a stranger's sizes get no memory before the weights have them
        wanted = {name: each for name, each in shape.model.state_dict().items() if own_name(name) not in shared}
        given = {name: each for name, each in tensors.items() if own_name(name) not in shared}
        for name in (*wanted, *given):
            want, have = wanted.get(name), given.get(name)
            if (
                want is None
                or have is None
                or want.shape != have.shape
                or (want.dtype in KINDS) != (have.dtype in KINDS)
            ):
                there = [None if each is None else f"{tuple(each.shape)} {each.dtype}" for each in (have, want)]
                raise InputError(f"The weights do not fit {config.file}: {name[:100]!r} is {there[0]}, not {there[1]}.")
            if not bool(have.isfinite().all()):
                raise InputError(f"The weights {name[:100]!r} in {config.file.parent} are not finite: train again.")
        made = cls._built(config, allow, "cpu")
        for name, place in made.model.state_dict(keep_vars=True).items():
            if name in given:
                place.data = arranged(given[name], config.strides.get(name))
        return made

    def _config(self, model: Equilibrium) -> dict[str, Any]:
        import eqprop

        if type(model) is not Equilibrium:
            raise InputError(f"The model is a {type(model).__name__}: an Equilibrium itself writes itself down.")
        return {
            "format": FORMAT,
            "library": "eqprop",
            "version": eqprop.__version__,
            "classes": list(self.outputs.names) if isinstance(self.outputs, Classes) else None,
            "network": model.network.spec(),
            "estimator": to_spec(model.estimator, "The estimator"),
            "on_unsettled": model.on_unsettled,
            "inputs": to_spec(self.inputs, "The inputs"),
            "outputs": to_spec(self.outputs, "The outputs"),
        }

    def _answers(self, raw: Sequence[Any]) -> list[Answer]:
        like = next(self.model.parameters(), torch.zeros(()))

        def placed(value: Any) -> Any:
            return value.to(like.device, like.dtype if value.is_floating_point() else None)

        if self.inputs is not None:
            x = self.inputs.prepare(raw)
        else:
            with explained("The examples are no arrays of one shape ({}).", RuntimeError, TypeError, ValueError):
                x = torch.stack([torch.as_tensor(each) for each in raw])
        return self.answers(self(tree_map(lambda each: placed(each) if isinstance(each, Tensor) else each, x)))

    @property
    def header(self) -> tuple[str, ...]:
        """A name for each value of an answer."""
        if self.outputs is not None:
            return self.outputs.header
        network, like = self.model.network, next(self.model.parameters(), torch.zeros(()))
        with torch.no_grad():  # a loss may read scores out of its nodes
            scores = network.scores({name: like.new_zeros(1, *node.shape) for name, node in network.nodes.items()})
        return tuple(f"score_{i}" for i in range(scores[0].numel()))

    def answers(self, scores: Tensor) -> list[Answer]:
        """What scores, (batch, ...), mean: a value for each name in ``header``."""
        if self.outputs is None:
            return [tuple(row) for row in scores.flatten(1).tolist()]
        loss = self.model.network.loss
        return self.outputs.answers(scores, None if loss is None else loss.probabilities(scores))


@dataclass(frozen=True)
class Config:
    """What ``config.json`` tells, of the right kinds but not yet built.

    Attributes:
        file: its path.
        network, estimator, inputs, outputs: as ``to_spec`` writes them.
        size, sha256: of the weights' file, in bytes.
        strides: tensor -> its strides in memory, if other than those of its file: kernels round accordingly.
    """

    file: Path
    network: dict[str, Any]
    estimator: Any
    on_unsettled: Any
    inputs: Any
    outputs: Any
    size: int
    sha256: str
    strides: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Config:
        """From a folder. Raises InputError if there is none, or if it is damaged, too large or too new."""
        file = folder / CONFIG
        damaged = f"{file} describes no model of eqprop ({{}})."
        with explained(damaged, OSError, ValueError, RecursionError):
            if not file.is_file():
                raise InputError(
                    f"There is no model in {str(folder)!r} (it has no {CONFIG}): name the folder of a saved model or "
                    "of a run."
                )
            if file.stat().st_size > LARGEST_CONFIG:
                raise ValueError(f"it is larger than {LARGEST_CONFIG} bytes")
            found = json.loads(file.read_text(encoding="utf-8"))
        match found:
            case {"format": int() as number} if number > FORMAT:
                raise InputError(f"{file} has format {number}, and this version of eqprop reads {FORMAT}: upgrade it.")
            case {
                "format": 1,
                "library": "eqprop",
                "network": {"shared": dict()} as network,
                "estimator": estimator,
                "on_unsettled": on_unsettled,
                "inputs": inputs,
                "outputs": outputs,
                "weights": {"bytes": int() as size, "sha256": str() as code, "strides": dict() as strides},
            } if re.fullmatch("[0-9a-f]{64}", code):
                return cls(file, network, estimator, on_unsettled, inputs, outputs, size, code, strides)
        raise InputError(damaged.replace("{}", "keys are missing, or of another kind"))

    def weights(self) -> bytes:
        """The content of its weights' file; empty if there is none. Raises InputError if it cannot be read."""
        for file in (self.file.with_name(WEIGHTS), self.file.with_name(waiting_name(self.sha256))):
            with (
                explained(f"Cannot read {file} ({{}}).", OSError, MemoryError),
                contextlib.suppress(FileNotFoundError),
            ):
                if file.is_file() and file.stat().st_size == self.size:
                    data = file.read_bytes()
                    if files.sha256(data) == self.sha256:
                        return data
        return b""


def load(run: str | Path, checkpoint: str = "best", allow: Collection[Callable[..., Any]] = ()) -> Pretrained:
    """The trained model of a run, on the CPU and in evaluation mode: ``eqprop.load("runs/mnist").predict(images)``.

    Args:
        run: its folder.
        checkpoint: "best", or the name of another one that the run has saved, such as "last".
        allow: your own classes and functions that the run may name; nothing in its files is executed.

    Raises:
        InputError: there is no such model, a file is damaged, or it names a class that is not allowed.
    """
    if checkpoint == "best":
        return Pretrained._read(Path(run), allow)
    config = Config.read(Path(run))
    tensors, _ = files.load(Path(run), checkpoint)
    weights = {name.removeprefix("model."): each for name, each in tensors.items() if name.startswith("model.")}
    return Pretrained._filled(config, allow, weights)


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """The weights of a saved model, by name. Raises InputError if there is none, or if it is damaged."""
    config = Config.read(Path(folder))
    with explained(f"The weights in {str(folder)!r} are damaged ({{}}).", SafetensorError, ValueError):
        return safetensors.torch.load(config.weights())


def predict_files(
    model: Pretrained, paths: Iterable[str | Path], write_row: Callable[[tuple[str | float, ...]], None]
) -> None:
    """Predict every example of files or folders, and write a row for each: its name and its answer.

    Args:
        model: with ``inputs``, which read the files.
        paths: of the files or folders.
        write_row: takes (name, *answer); rows of one batch come together.

    Raises:
        InputError: the model has no ``inputs``, or an example is of another kind than those it was trained on.
    """
    inputs = model.inputs
    if inputs is None:
        raise InputError("The model was trained on arrays, so it reads no files: load it in Python, and use predict.")
    examples = chain.from_iterable(inputs.read(Path(path)) for path in paths)
    while some := list(islice(examples, BATCH)):
        for (name, _), answer in zip(some, model.predict([raw for _, raw in some]), strict=True):
            write_row((name, *answer))


def predict_task(model: Pretrained, task: Task, write_row: Callable[[tuple[str | float, ...]], None]) -> None:
    """Predict every example of a task, and write a row for each: its index in the first epoch, and its answer.

    Args:
        model: trained on such inputs.
        task: its inputs are prepared already.
        write_row: takes (index, *answer).
    """
    index = 0
    for x, _ in task.epoch(0):
        for answer in model.answers(model(x)):
            write_row((str(index), *answer))
            index += 1


def waiting_name(code: str) -> str:
    """The weights' file until it replaces the one before."""
    return f".{WEIGHTS}.{code[:16]}"


def own_name(name: str) -> str:
    """A parameter's name in its network, of that in the model."""
    return name.removeprefix("network.")


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    return torch.empty(tuple(shape), device="meta").stride()


def without_gaps(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a tensor of these strides is contiguous but for the order of its dimensions."""
    size = 1
    for stride, count in sorted((stride, count) for stride, count in zip(strides, shape, strict=True) if count != 1):
        if stride != size or not count:
            return False
        size *= count
    return True


def arranged(tensor: Tensor, strides: Any) -> Tensor:
    """A copy with these strides, at an address that kernels like; ``None``: contiguous.

    Raises:
        InputError: they are not those of a tensor without gaps.
    """
    if strides is None:
        return tensor.clone(memory_format=torch.contiguous_format)
    if not isinstance(strides, list) or not all(type(each) is int and 0 <= each < 2**62 for each in strides):
        raise InputError(f"The strides {strides!r:.100} are no list of numbers.")
    if len(strides) != tensor.ndim or not without_gaps(tensor.shape, strides):
        raise InputError(f"The strides {strides!r:.100} do not fit a tensor of shape {tuple(tensor.shape)}.")
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
