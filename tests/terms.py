"""Units, and couplings of a user's own, that the tests share."""

import torch
from torch import nn

import eqprop as ep

ACTIVATIONS = [
    ep.identity, ep.hard_sigmoid, ep.energy.half_hard_sigmoid, ep.energy.centred_hard_sigmoid, ep.sigmoid,
    ep.energy.half_sigmoid, ep.tanh,
    ep.energy.Clip(0.7, -1.0, 2.0), ep.energy.Sigmoid(3.0, 0.1),
]  # fmt: skip
WITHOUT_POTENTIAL = [ep.energy.smooth_clip, ep.energy.SmoothClip(3.0)]


class Inhibition(ep.Coupling):
    holomorphic = True

    def __init__(self):
        super().__init__()
        self.nodes, self.strength = ("a",), nn.Parameter(torch.tensor(0.2))

    def energy(self, *states):
        s = states[0].flatten(1)
        return 0.5 * self.strength * (s.sum(1).square() - s.square().sum(1))


class ThreeBody(ep.Coupling):
    nodes = ("a", "b", "c")
    holomorphic = True

    def energy(self, *states):
        a, b, c = (s.flatten(1).sum(1) for s in states)
        return a * b.square() * c
