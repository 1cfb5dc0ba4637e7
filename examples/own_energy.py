"""Your own energy term: define only its energy; forces and learning are derived."""

import torch
from torch import Tensor, nn

import eqprop as ep
from eqprop.tasks import load_images


class LateralInhibition(ep.Coupling):
    """strength/2 ((sum s)^2 - sum s^2) / units: every pair of units of a node inhibits each other."""

    def __init__(self, node: str, strength: float):
        super().__init__()
        self.nodes = (node,)
        self.strength = nn.Parameter(torch.tensor(strength))

    def energy(self, *states: Tensor) -> Tensor:
        s = states[0].flatten(1)
        return 0.5 * self.strength * (s.sum(1).square() - s.square().sum(1)) / s.shape[1]


def main(epochs: int = 10) -> float:
    torch.manual_seed(0)
    data = load_images("digits")
    train, test = data.train, data.test
    nodes = {
        "image": ep.Node((64,)),
        "hidden": ep.Node((128,), ep.hard_sigmoid),
        "class": ep.Node((10,), ep.hard_sigmoid),
    }
    couplings = [
        ep.Synapse("image", "hidden", ep.Dense((64,), (128,))),
        ep.Synapse("hidden", "class", ep.Dense((128,), (10,))),
        ep.Bias("hidden", (128,), fan_in=64),
        ep.Bias("class", (10,), fan_in=128),
        LateralInhibition("hidden", 0.1),
    ]
    network = ep.Network(nodes, couplings, ep.SquaredError("class", (10,)))
    settle = ep.EquilibriumPropagation(ep.symmetric(0.5), free=ep.FixedSweeps(12), nudged=ep.FixedSweeps(6))
    model = ep.Equilibrium(network, settle)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(32):
            optimizer.zero_grad()
            model.loss(train.pixels[rows].flatten(1) / 255, train.labels[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return float((model(test.pixels.flatten(1) / 255).argmax(1) == test.labels).float().mean())


if __name__ == "__main__":
    print(f"test accuracy {100 * main():.1f} %")
