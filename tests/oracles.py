"""The numeric answers of the program of Laborieux et al. (2021), as networks of this package: data/oracle/README.md."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import eqprop as ep
from eqprop.learning.teachers import Force

FOLDER = Path(__file__).parent / "data" / "oracle"
ACTIVATIONS = {
    "my_hard_sig": ep.energy.half_hard_sigmoid,
    "hard_sigmoid": ep.hard_sigmoid,
    "mysig": ep.sigmoid,
    "tanh": ep.tanh,
    "ctrd_hard_sig": ep.energy.centred_hard_sigmoid,
}
PUBLISHED = Force(exact=False)
POOLS = {"m": ep.MaxPool(2), "a": ep.AveragePool(2), "i": None}


class Oracle:
    """One file: its network with its weights, its data, and the answers."""

    def __init__(self, path: Path):
        self.answers = {k: torch.from_numpy(v) for k, v in np.load(path).items() if k != "config"}
        self.config = json.loads(str(np.load(path)["config"]))
        self.x, self.y = self.answers["x"], self.answers["y"].long()
        if self.config["model"] == "MLP":
            self.x = self.x.flatten(1)
        self.separate = self.config["model"] == "VFCNN"
        self.network = self._network()
        self._load()

    def _network(self) -> ep.Network:
        c = self.config
        activation, out = ACTIVATIONS[c["activation"]], ep.SquaredError
        if c["model"] == "MLP":
            layers = [ep.DenseLayer(units, activation) for units in c["sizes"][1:]]
            shape: tuple[int, ...] = (c["sizes"][0],)
        else:
            kernel = c.get("kernel", 3)
            layers = [
                ep.ConvLayer(channels, kernel, padding=padding, pool=POOLS[pool], activation=activation)
                for channels, padding, pool in zip(c["channels"][1:], c["paddings"], c["pools"], strict=True)
            ]
            fc = c["fc"][:-1] if c.get("softmax") else c["fc"]
            layers += [ep.DenseLayer(units, activation) for units in fc]
            shape = (c["channels"][0], c["in_size"], c["in_size"])
        if c.get("softmax"):
            out = partial(ep.ReadoutCrossEntropy, classes=c["fc"][-1])
        elif c["loss"] == "ce":
            layers[-1] = ep.DenseLayer(layers[-1].units, ep.identity)
            out = ep.CrossEntropy
        return ep.chain(shape, layers, out, separate_feedback=self.separate)

    def names(self) -> dict[str, str]:
        """This package's parameter name -> the oracle's."""
        found = {}
        layers = list(self.network.free)
        nodes = ["input", *layers]
        for n, (pre, post) in enumerate(itertools.pairwise(nodes)):
            key = f"couplings.{pre}_{post}"
            if self.separate and n > 0:
                found[f"{key}.feedforward.map.weight"] = f"synapses.{n}.weight"
                found[f"{key}.feedback.map.weight"] = f"B_syn.{n - 1}.weight"
            else:
                found[f"{key}.map.weight"] = f"synapses.{n}.weight"
            found[f"couplings.{post}_bias.bias"] = f"synapses.{n}.bias"
        if self.config.get("softmax"):
            found["loss.readout.weight"] = f"synapses.{len(layers)}.weight"
            found["loss.readout.bias"] = f"synapses.{len(layers)}.bias"
        return found

    def _load(self) -> None:
        names = self.names()
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(self.answers[f"param.{names[name]}"].view_as(parameter))

    def gradients(self, kind: str) -> dict[str, Tensor]:
        """``kind``: "ep" or "bptt"."""
        return {
            name: self.answers[f"{kind}_grad.{theirs}"]
            for name, theirs in self.names().items()
            if f"{kind}_grad.{theirs}" in self.answers
        }

    def estimator(self, kind: str) -> ep.Estimator:
        c = self.config
        free = ep.FixedSweeps(c["T1"], ep.synchronous)
        if kind == "bptt":
            return ep.BackpropagationThroughTime(free, c["T2"])
        stencil = {"symmetric": ep.symmetric, "onesided": ep.one_sided}[c["estimator"]](c["beta"])
        rule = ep.contrastive
        if self.separate:
            rule = ep.learning.kolen_pollack if c["same_update"] else ep.vector_field
        return ep.EquilibriumPropagation(
            stencil, free, ep.FixedSweeps(c["T2"], ep.synchronous), rule, ep.learning.forms.states, PUBLISHED
        )


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.npz"))
