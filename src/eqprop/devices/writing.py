"""Optimisers that write weights into devices: what an estimator leaves in ``.grad`` becomes pulses.

Each is a ``torch.optim.Optimizer``. All random draws depend on the seed, the parameter's name and the number of its
updates alone, so that a run resumes to the same bits. Sources of the methods are in their docstrings.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from eqprop.checks import Count, Natural, NonNegative, Positive
from eqprop.devices.cells import Cells, Device, DeviceCells, Share, normal, rounded_at_random
from eqprop.devices.pairs import Pair
from eqprop.draws import generator_for
from eqprop.energy.couplings import is_weight
from eqprop.errors import DeadUpdatesWarning, InputError


def is_digital(name: str, parameter: Tensor) -> bool:
    """Whether a parameter holds no weights, such as a bias: these are digital unless you say otherwise."""
    return not is_weight(name, parameter)


class Written(Optimizer, ABC):
    """The base of optimisers of which some parameters are in memory and others digital.

    Args:
        named: parameters with their names, or groups of them: dictionaries as PyTorch has them, whose ``params`` are
            named parameters, with options of their own.
        defaults: options of groups, with ``lr``.
        digital: (name, parameter) -> whether the parameter is outside the memory: it descends by ``lr``.

    Raises:
        InputError: there is no parameter, one has no name, or two have the same.
    """

    def __init__(self, named: Iterable[Any], defaults: dict[str, Any], digital: Callable[[str, Tensor], bool]):
        super().__init__(list(groups_of(named, digital)), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters that have a gradient; the result of ``closure``, which is called first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for name, parameter in zip(group["names"], group["params"], strict=True):
                if parameter.grad is None:
                    continue
                if group["digital"]:
                    parameter.sub_(parameter.grad, alpha=group["lr"])
                else:
                    self._write(group, name, parameter)
        return loss

    @abstractmethod
    def _write(self, group: dict[str, Any], name: str, parameter: Tensor) -> None:
        """Updates one parameter in memory, and its ``state``: tensors and plain data."""

    def metrics(self) -> dict[str, float]:
        """What was written so far, for the row of an epoch: ``pulses_per_weight``, the mean over weights in memory."""
        written = [(p, self.state[p]) for group in self.param_groups for p in group["params"] if self.state.get(p)]
        return self._shares(written) if written else {}

    def operations(self) -> dict[str, int]:
        """What was done so far to write, by the names of ``eqprop.physics.Tally``.

        The arrays of different parameters are written one after the other; all cells of an array can get a pulse in the
        same slot. What programs the first weights, and digital memory, are left out.

        Returns:
            ``pulses``, ``pulse_slots``, and, where arrays are read in order to write, ``readings`` and ``conversions``.
        """
        total: dict[str, float] = {"pulses": 0, "pulse_slots": 0}
        for parameter, state in self.state.items():
            for name, value in self._operations(parameter, state).items():
                total[name] = total.get(name, 0) + value
        return {name: round(value) for name, value in total.items()}

    def _operations(self, parameter: Tensor, state: dict[str, Any]) -> dict[str, float]:
        """The same of one parameter, from its state."""
        return {"pulses": state["pulses"], "pulse_slots": state["slots"]}

    def _shares(self, written: list[tuple[Tensor, dict[str, Any]]]) -> dict[str, float]:
        weights = sum(parameter.numel() for parameter, _ in written)
        return {"pulses_per_weight": sum(state["pulses"] for _, state in written) / weights}

    def __getstate__(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if not name.startswith("_") and not callable(value)}
        return {**own, **super().__getstate__()}


def groups_of(named: Iterable[Any], digital: Callable[[str, Tensor], bool]) -> Iterable[dict[str, Any]]:
    """Groups for an optimiser, each either in memory or ``digital``, with the ``names`` of its parameters.

    Raises:
        InputError: see ``Written``.
    """
    given: list[Any] = list(named)
    groups = given if given and isinstance(given[0], Mapping) else [{"params": given}]
    known: set[str] = set()
    for group in groups:
        pairs = list(group["params"])
        if any(not isinstance(pair, tuple) or not isinstance(pair[0], str) for pair in pairs):
            raise InputError("Parameters need names, which choose their devices: give network.named_parameters().")
        for name, _ in pairs:
            if name in known:
                raise InputError(
                    f"Two parameters are named {name!r}: give each its own name, which chooses its devices."
                )
            known.add(name)
        for outside in (False, True):
            part = [(name, each) for name, each in pairs if bool(digital(name, each)) == outside]
            if part:
                names, parameters = zip(*part, strict=True)
                kind = {"name": "digital" if outside else "weights"} if len(groups) == 1 else {}
                yield {**kind, **group, "params": list(parameters), "names": list(names), "digital": outside}
    if not known:
        raise InputError("There is no parameter to write: give network.named_parameters().")


class Array:
    """One array of devices, with what it stores in the state of an optimiser.

    Args:
        device: of each weight.
        cells: these devices.
        state: of the parameter; holds the values, the errors of writing, and the number of slots for pulses.
        key: of the array in it.
    """

    def __init__(self, device: Device | Pair, cells: Cells, state: dict[str, Any], key: str):
        self.device, self.cells, self.state, self.key, self.error = device, cells, state, key, f"{key}_error"
        state.setdefault("slots", 0.0)

    def read(self) -> Tensor:
        """The weights as they are read."""
        found = self.cells.read(self.state[self.key])
        return found + self.state[self.error] if self.error in self.state else found

    def program(self, weights: Tensor, draw: torch.Generator, where: Tensor | None = None) -> None:
        """Writes weights, in all cells or in those that ``where`` marks."""
        values = self.cells.programmed(weights)
        self.state[self.key] = values if where is None else torch.where(where, values, self.state[self.key])
        self._err(torch.ones_like(weights, dtype=torch.bool) if where is None else where, weights, draw)

    def pulse(self, counts: Tensor, draw: torch.Generator) -> int:
        """Sends pulses, and returns their number."""
        self.state[self.key] = self.cells.pulsed(self.state[self.key], counts, draw)
        self._err(counts != 0, counts, draw)
        sizes = counts.abs()
        self.state["slots"] += int(sizes.max()) if counts.numel() else 0
        return int(sizes.sum())

    def rest(self, draw: torch.Generator) -> None:
        """Lets the time of one update pass."""
        self.state[self.key] = self.cells.rested(self.state[self.key], draw)

    def _err(self, where: Tensor, like: Tensor, draw: torch.Generator) -> None:
        """Draws the errors of the cells that were written."""
        if self.device.write_noise:
            size = self.device.write_noise * self.device.step
            drawn = size * normal(like, draw)
            self.state[self.error] = torch.where(where, drawn, self.state.get(self.error, torch.zeros_like(like)))


class Writing(Written):
    """The base of the methods that send pulses to devices.

    A weight is ``scale`` times what its device holds. The scale of a parameter is larger where the device's mean range
    would not hold its initial weights: then these just fill the range. With the first step the weights are written into
    the devices, which clips those that are out of their own device's range; later, weights that something else has
    changed since the last step are written anew. Writing so is exact, but for ``write_noise``.

    Args:
        named: parameters with their names, such as ``network.named_parameters()``, or groups of them.
        device: of each weight.
        lr: the learning rate.
        seed: of the devices and of all noise.
        scale: see above.
        digital: (name, parameter) -> whether the parameter is in no device: it descends by ``lr``. Default: no weight.

    Attributes:
        cells: the devices by the name of their parameter, made with the first step; set your own to choose them.

    Raises:
        InputError: a device holds no negative weights.
    """

    def __init__(
        self,
        named: Iterable[Any],
        device: Device | Pair,
        lr: Positive,
        *,
        seed: Natural = 0,
        scale: Positive = 1.0,
        digital: Callable[[str, Tensor], bool] = is_digital,
    ):
        super().__init__(named, {"lr": lr, "device": repr(device)}, digital)
        self.device, self.seed, self.scale = signed(device), seed, scale
        self.cells: dict[str, Cells] = {}

    @property
    def taught(self) -> Device | Pair:
        """The devices that the gradient goes to."""
        return self.device

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As PyTorch's. Raises InputError for the state of other devices."""
        for group in state_dict["param_groups"]:
            if group.get("device") != repr(self.device):
                raise InputError(f"The saved weights are in other devices, {group.get('device')}: use these.")
        super().load_state_dict(state_dict)

    def _array(self, name: str, like: Tensor, device: Device | Pair, key: str) -> Array:
        place = name if key == "values" else f"{name}:{key}"
        if place not in self.cells:
            self.cells[place] = device.cells(like.shape, self.seed, place, like.dtype, like.device)
        return Array(device, self.cells[place], self.state[like], key)

    def _write(self, group: dict[str, Any], name: str, parameter: Tensor) -> None:
        state, begins = self.state[parameter], not self.state[parameter]
        if begins:
            room = min(-self.device.low, self.device.high)
            scale = max(self.scale, float(parameter.abs().max()) / room if parameter.numel() else 0.0)
            state |= {"step": 0, "scale": scale, "pulses": 0.0, "small": 0, "updates": 0}
        draw = generator_for("write", self.seed, name, state["step"])
        array = self._array(name, parameter, self.device, "values")
        changed = None if begins else parameter != array.read() * state["scale"]
        if changed is None or bool(changed.any()):
            array.program(parameter / state["scale"], draw, changed)
        assert parameter.grad is not None
        wanted = parameter.grad * (-group["lr"] / state["scale"])
        state["pulses"] += self._change(array, name, parameter, wanted, draw)
        array.rest(draw)
        due = wanted != 0
        state["updates"] += int(due.sum())
        state["small"] += int((due & (wanted.abs() < self.taught.granularity / 2)).sum())
        state["step"] += 1
        parameter.copy_(array.read() * state["scale"])

    def _change(self, array: Array, name: str, parameter: Tensor, wanted: Tensor, draw: torch.Generator) -> float:
        """Changes what the array holds by about ``wanted``; the number of pulses."""
        return array.pulse(self._counts(name, parameter, wanted, draw), draw)

    @abstractmethod
    def _counts(self, name: str, parameter: Tensor, wanted: Tensor, draw: torch.Generator) -> Tensor:
        """The pulses for a wanted change of what the devices of a parameter hold."""

    def metrics(self) -> dict[str, float]:
        """What was written so far, for the row of an epoch.

        Returns:
            ``pulses_per_weight``, the mean over weights in devices; ``dead_updates``, the share of updates, of those
            that are not 0, below half a pulse: a driver that rounds would not write them.
        """
        return super().metrics()

    def _shares(self, written: list[tuple[Tensor, dict[str, Any]]]) -> dict[str, float]:
        small, updates = (sum(state[key] for _, state in written) for key in ("small", "updates"))
        return {**super()._shares(written), "dead_updates": small / max(updates, 1)}


def signed(device: Device | Pair) -> Device | Pair:
    """The device itself. Raises InputError if it holds no negative weights, or no positive ones."""
    if not device.low < 0 < device.high:
        raise InputError(
            f"{type(device).__name__}: it holds weights from {device.low:g} to {device.high:g}, of one sign: give a "
            "Pair of it."
        )
    return device


class Pulses(Writing):
    """Each update becomes a whole number of pulses, rounded at random: unbiased, on devices with constant pulses.

    Warns once, with ``DeadUpdatesWarning``, if after 100 steps most updates are below half a pulse.

    Args:
        named, device, lr, seed, scale, digital: see ``Writing``.
        granularity: of what an update is divided by, in the device's units; ``None``: the device's. 0: the limit of
            small pulses without noise, to tell the granularity of a device from the rest of it.
    """

    def __init__(
        self,
        named: Iterable[Any],
        device: Device | Pair,
        lr: Positive,
        *,
        granularity: NonNegative | None = None,
        **kwargs: Any,
    ):
        super().__init__(named, device, lr, **kwargs)
        self.granularity, self.warned = device.granularity if granularity is None else granularity, False

    def _write(self, group: dict[str, Any], name: str, parameter: Tensor) -> None:
        super()._write(group, name, parameter)
        state = self.state[parameter]
        if state["step"] == 100 and not self.warned and self.granularity and 2 * state["small"] > state["updates"]:
            self.warned = True
            warnings.warn(
                f"{state['small'] / state['updates']:.0%} of the updates of {name!r} are below half a pulse "
                f"({state['scale'] * self.granularity / 2:.2g}): they are rounded at random, which is right on "
                "average, and noisy. Take a larger learning rate or batch, or MixedPrecision, which keeps the rest.",
                DeadUpdatesWarning,
                stacklevel=2,
            )

    def _change(self, array: Array, name: str, parameter: Tensor, wanted: Tensor, draw: torch.Generator) -> float:
        if self.granularity:
            return super()._change(array, name, parameter, wanted, draw)
        array.state[array.key] = array.cells.flowed(array.state[array.key], wanted)
        sizes = wanted.abs()
        array.state["slots"] += float(sizes.max()) / self.device.granularity if wanted.numel() else 0.0
        return float(sizes.sum()) / self.device.granularity

    def _counts(self, name: str, parameter: Tensor, wanted: Tensor, draw: torch.Generator) -> Tensor:
        return rounded_at_random(wanted / self.granularity, draw)


class SignOnly(Writing):
    """One pulse where the gradient is large, by its sign alone: the simplest driver (the Manhattan rule).

    ``lr`` is that of digital parameters.

    Args:
        named, device, lr, seed, scale, digital: see ``Writing``.
        above: a gradient is large above this many times the mean size in its parameter.
    """

    def __init__(
        self,
        named: Iterable[Any],
        device: Device | Pair,
        lr: Positive,
        *,
        above: NonNegative = 1.0,
        **kwargs: Any,
    ):
        super().__init__(named, device, lr, **kwargs)
        self.above = above

    def _counts(self, name: str, parameter: Tensor, wanted: Tensor, draw: torch.Generator) -> Tensor:
        size = wanted.abs()
        return torch.where(size > self.above * size.mean(), wanted.sign(), 0.0)


class MixedPrecision(Writing):
    """Updates add up in digital memory, of which whole pulses are taken (Nandakumar et al. 2020, doi
    10.3389/fnins.2020.00406).
    """

    def _counts(self, name: str, parameter: Tensor, wanted: Tensor, draw: torch.Generator) -> Tensor:
        state = self.state[parameter]
        total = state.get("kept", 0.0) + wanted / self.device.granularity
        counts = total.trunc()
        state["kept"] = total - counts
        return counts


class TikiTaka(Writing):
    """Tiki-Taka, version 2 (Gokmen 2021, doi 10.3389/frai.2021.699148).

    The gradient goes as pulses to a fast array. Columns of it, the weights of one input, are read in turn, about the
    symmetry point of its devices, and added to a digital buffer; a weight gets one pulse once its buffer exceeds one.

    Args:
        named, device, lr, seed, scale, digital: see ``Writing``; ``lr`` is that of the fast array.
        fast: the device of the fast array; ``None``: ``device`` read from its symmetry point.
        transfer_rate: what a read adds to the buffer, as a share of it.
        every: updates between reads.
        columns: how many are read at a time; 0: all.
        momentum: the share of the buffer that stays after a pulse.
        forget: whether it is a share of the whole buffer; else the rest above one pulse stays too.
    """

    def __init__(
        self,
        named: Iterable[Any],
        device: Device | Pair,
        lr: Positive,
        *,
        fast: Device | Pair | None = None,
        transfer_rate: Positive = 0.5,
        every: Count = 1,
        columns: Natural = 64,
        momentum: Share = 0.1,
        forget: bool = True,
        **kwargs: Any,
    ):
        super().__init__(named, device, lr, **kwargs)
        self.fast = signed(self.fast_of(device) if fast is None else fast)
        self.transfer_rate, self.every, self.columns = transfer_rate, every, columns
        self.momentum, self.forget = momentum, forget

    @staticmethod
    def fast_of(device: Device | Pair) -> Device | Pair:
        """The device of the fast array, by default."""
        return replace(device, from_symmetry=True) if isinstance(device, Device) else device

    @property
    def taught(self) -> Device | Pair:
        """The devices that the gradient goes to."""
        return self.fast

    def _counts(self, name: str, parameter: Tensor, wanted: Tensor, draw: torch.Generator) -> Tensor:
        state, matrix = self.state[parameter], as_matrix(parameter)
        fast = self._array(name, parameter, self.fast, "fast")
        if "fast" not in state:
            fast.program(torch.zeros_like(parameter), draw)
            state |= {"buffer": torch.zeros_like(matrix), "next": 0, "fast_pulses": 0}
            self._begin(state, matrix)
        sent = rounded_at_random(self._sent(state, as_matrix(wanted)) / self.fast.granularity, draw)
        state["fast_pulses"] += fast.pulse(sent.view_as(wanted), draw)
        fast.rest(draw)
        counts = torch.zeros_like(matrix)
        if (state["step"] + 1) % self.every == 0:
            total = matrix.shape[1]
            many = min(self.columns or total, total)
            columns = (torch.arange(many, device=matrix.device) + state["next"]) % total
            state["next"] = (state["next"] + many) % total
            heard, ready = self._heard(state, columns, as_matrix(fast.read())[:, columns])
            buffer = state["buffer"][:, columns] + self.transfer_rate / self.device.granularity * heard
            pulses = buffer.trunc().clamp(-1, 1)
            left = self.momentum * buffer if self.forget else buffer - (1 - self.momentum) * pulses
            state["buffer"] = state["buffer"].index_copy(1, columns, torch.where(pulses != 0, left, buffer))
            counts[:, columns] = pulses * ready
        return counts.view_as(parameter)

    def _begin(self, state: dict[str, Any], matrix: Tensor) -> None:
        """Adds to the state what a variant keeps."""

    def _sent(self, state: dict[str, Any], wanted: Tensor) -> Tensor:
        """What the fast array is taught for a wanted change."""
        return wanted

    def _heard(self, state: dict[str, Any], columns: Tensor, read: Tensor) -> tuple[Tensor, Tensor | float]:
        """What reads of the fast array add to the buffer, and whether the columns' weights may be written."""
        return read, 1.0

    def _operations(self, parameter: Tensor, state: dict[str, Any]) -> dict[str, float]:
        rows, total = as_matrix(parameter).shape
        reads = state["step"] // self.every * min(self.columns or total, total)
        found = super()._operations(parameter, state)
        return found | {
            "pulses": found["pulses"] + state["fast_pulses"],
            "readings": reads,
            "conversions": rows * reads,
        }

    def _shares(self, written: list[tuple[Tensor, dict[str, Any]]]) -> dict[str, float]:
        weights, fast = sum(p.numel() for p, _ in written), sum(state["fast_pulses"] for _, state in written)
        return {**super()._shares(written), "fast_pulses_per_weight": fast / weights}


def as_matrix(tensor: Tensor) -> Tensor:
    """(first dimension, all others): the weights of one output in a row, those of one input in a column."""
    return tensor.reshape(len(tensor), -1) if tensor.ndim > 1 else tensor.reshape(1, -1)


class ChoppedTransfer(TikiTaka):
    """Tiki-Taka with a chopper (Rasch et al. 2024, doi 10.1038/s41467-024-51221-z).

    The fast array learns each column with a sign that changes after every ``period`` reads, so that what the array does
    by itself averages out.

    Args:
        named, device, lr, seed, scale, digital: see ``Writing``.
        fast, transfer_rate, every, columns, momentum, forget: see ``TikiTaka``.
        period: reads of a column between two changes of its sign.
    """

    def __init__(self, named: Iterable[Any], device: Device | Pair, lr: Positive, *, period: Count = 5, **kwargs: Any):
        super().__init__(named, device, lr, **kwargs)
        self.period = period

    def _begin(self, state: dict[str, Any], matrix: Tensor) -> None:
        state |= {"sign": torch.ones_like(matrix[0]), "reads": torch.zeros_like(matrix[0])}

    def _sent(self, state: dict[str, Any], wanted: Tensor) -> Tensor:
        return wanted * state["sign"]

    def _heard(self, state: dict[str, Any], columns: Tensor, read: Tensor) -> tuple[Tensor, Tensor | float]:
        sign, reads = state["sign"][columns], state["reads"][columns] + 1
        flips = reads % self.period == 0
        heard, ready = self._referred(state, columns, read, reads, flips)
        state["sign"] = state["sign"].index_copy(0, columns, torch.where(flips, -sign, sign))
        state["reads"] = state["reads"].index_copy(0, columns, reads)
        return sign * heard, ready

    def _referred(
        self, state: dict[str, Any], columns: Tensor, read: Tensor, reads: Tensor, flips: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        """The reads relative to a reference, and whether weights may be written."""
        return read, 1.0


class AGAD(ChoppedTransfer):
    """Analogue gradient accumulation with a dynamic reference: chopped, and reads count relative to their mean in the
    last period, so that no symmetry point need be known (Rasch et al. 2024, doi 10.1038/s41467-024-51221-z).

    The default of ``fast`` is ``device`` without any reference.

    Args:
        named, device, lr, seed, scale, digital: see ``Writing``.
        fast, transfer_rate, every, columns, momentum, forget: see ``TikiTaka``.
        period: see ``ChoppedTransfer``.
        tail: the mean is over the last ``period`` / ``tail`` reads, about.
    """

    def __init__(
        self, named: Iterable[Any], device: Device | Pair, lr: Positive, *, tail: Positive = 2.5, **kwargs: Any
    ):
        super().__init__(named, device, lr, **kwargs)
        self.tail = tail

    @staticmethod
    def fast_of(device: Device | Pair) -> Device | Pair:
        """The device of the fast array, by default."""
        if not isinstance(device, Device):
            return device
        return replace(device, from_symmetry=False, reference=0.0, reference_spread=0.0)

    def _begin(self, state: dict[str, Any], matrix: Tensor) -> None:
        super()._begin(state, matrix)
        state |= {"mean": torch.zeros_like(matrix), "past": torch.zeros_like(matrix)}

    def _referred(
        self, state: dict[str, Any], columns: Tensor, read: Tensor, reads: Tensor, flips: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        past, share = state["past"][:, columns], min(self.tail / self.period, 1.0)
        mean = (1 - share) * state["mean"][:, columns] + share * read
        state["mean"] = state["mean"].index_copy(1, columns, mean)
        state["past"] = state["past"].index_copy(1, columns, torch.where(flips, mean, past))
        return read - past, (reads > self.period + 1).to(read.dtype)


class BinaryFlip(Written):
    """Weights of two values, plus and minus one size a parameter, which flip (Laydevant et al. 2021, arXiv 2103.08953).

    The size is the mean of the initial sizes, rounded to four digits after the point. With g the direction of descent
    and m <- (1 - gamma) m + gamma g, a weight flips where -sign(w) m > threshold.

    Args:
        named: parameters with their names, or groups of them, which may have a ``gamma`` and a ``threshold`` each.
        lr: of digital parameters.
        gamma: see above.
        threshold: see above.
        digital: (name, parameter) -> whether the parameter is not binary: it descends by ``lr``. Default: no weight.
    """

    def __init__(
        self,
        named: Iterable[Any],
        lr: Positive,
        gamma: Share = 1e-5,
        threshold: NonNegative = 5e-7,
        digital: Callable[[str, Tensor], bool] = is_digital,
    ):
        super().__init__(named, {"lr": lr, "gamma": gamma, "threshold": threshold}, digital)

    def _write(self, group: dict[str, Any], name: str, parameter: Tensor) -> None:
        state = self.state[parameter]
        if not state:
            size = round(float(parameter.abs().mean()), 4)
            state |= {"size": size, "momentum": torch.zeros_like(parameter), "pulses": 0, "slots": 0, "step": 0}
            parameter.copy_(torch.full_like(parameter, size).copysign(parameter))
        assert parameter.grad is not None
        momentum = (1 - group["gamma"]) * state["momentum"] - group["gamma"] * parameter.grad
        flips = parameter.sign() * momentum < -group["threshold"]
        state["momentum"] = momentum
        flipped = int(flips.sum())
        state["pulses"] += flipped
        state["slots"] += flipped > 0
        state["step"] += 1
        parameter.copy_(torch.where(flips, -parameter, parameter))


METHODS: dict[str, type[Writing]] = {
    "pulses": Pulses,
    "sign": SignOnly,
    "mixed": MixedPrecision,
    "tiki-taka": TikiTaka,
    "chopped": ChoppedTransfer,
    "agad": AGAD,
}
"""Names of methods, as options of recipes, and what they stand for."""


# -- the law of asymmetric pulses --


def resting_weights(cells: DeviceCells, targets: Tensor, gradient_size: NonNegative) -> Tensor:
    """The weights at which plain pulses come to rest: the targets, pulled to where pulses up and down cancel.

    With gradients w - target plus noise, of mean size m, pulses up and down come at rates (m -+ (w - target))/2, so
    that (target - w)(u + d)/2 + m (u - d)/2 = 0 there; u and d are the pulses at w, relative to the granularity.

    Args:
        cells: the devices.
        targets: the weights that the loss asks for, in the shape of the cells.
        gradient_size: m, in units of weights: the gradient of a weight that is off by one is one.
    """
    low, high = cells.read(cells.low), cells.read(cells.high)
    for _ in range(60):
        middle = (low + high) / 2
        up, down = cells.device.response(cells, middle + cells.reference)
        up, down = cells.up * up, cells.down * down
        rises = (targets - middle) * (up + down) + gradient_size * (up - down) > 0
        low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
    return (low + high) / 2


def pull(device: Device, gradient_size: NonNegative, seed: Natural = 0) -> str:
    """Where plain pulses pull the weights of a kind of device, and what to use instead, in words.

    Args:
        device: its kind.
        gradient_size: the mean size of a gradient, as in ``resting_weights``.
        seed: of the devices that are drawn.
    """
    cells = device.cells((10000,), seed, dtype=torch.float64)
    targets = torch.empty(10000, dtype=torch.float64).uniform_(-0.5, 0.5, generator=generator_for("targets", seed))
    targets = targets * min(-device.low, device.high)
    error = float((resting_weights(cells, targets, gradient_size) - targets).square().mean().sqrt())
    points = cells.read(cells.symmetry_point())
    points = points[points.isfinite()]
    where = f"to {float(points.mean()):.2g} +- {float(points.std()):.2g}" if len(points) > 1 else "to no point"
    use = "Pulses" if error < 0.02 else "TikiTaka, AGAD or, with steps below one pulse, MixedPrecision"
    return (
        f"This device pulls weights {where}; by plain pulses of gradients of mean size {gradient_size:g} they rest "
        f"{error:.2g} (rms) from where they should: use {use}."
    )
