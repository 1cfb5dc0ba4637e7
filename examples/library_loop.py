"""Your own training loop, on the embedded digits."""

from functools import partial

import torch

import eqprop as ep
from eqprop.tasks import load_images


def main(epochs: int = 5) -> float:
    torch.manual_seed(0)
    data = load_images("digits")
    train, test = data.train, data.test
    layers = [ep.ConvLayer(32, pool=None), ep.ConvLayer(64)]
    network = ep.chain((1, 8, 8), layers, partial(ep.ReadoutCrossEntropy, classes=10))
    settle = ep.EquilibriumPropagation(ep.symmetric(0.5), free=ep.FixedSweeps(10), nudged=ep.FixedSweeps(5))
    model = ep.Equilibrium(network, settle)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(32):
            optimizer.zero_grad()
            model.loss(train.pixels[rows] / 255, train.labels[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return float((model(test.pixels / 255).argmax(1) == test.labels).float().mean())


if __name__ == "__main__":
    print(f"test accuracy {100 * main():.1f} %")
