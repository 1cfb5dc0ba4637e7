"""An equilibrium block inside a feedforward network: stem, block that settles, head, any torch loss."""

import torch
from torch import nn

import eqprop as ep
from eqprop.tasks import load_images


def main(epochs: int = 10) -> float:
    torch.manual_seed(0)
    data = load_images("digits")
    train, test = data.train, data.test
    inside = ep.chain((16, 8, 8), [ep.ConvLayer(32), ep.DenseLayer(64)])  # no loss of its own
    settle = ep.EquilibriumPropagation(ep.symmetric(0.5), free=ep.FixedSweeps(10), nudged=ep.FixedSweeps(5))
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        ep.Equilibrium(inside, settle),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train.pixels[rows] / 255), train.labels[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return float((model(test.pixels / 255).argmax(1) == test.labels).float().mean())


if __name__ == "__main__":
    print(f"test accuracy {100 * main():.1f} %")
