"""Your own device: pulses that were measured, in a CSV file, become the weights of a network that learns.

own_device.csv has the shape of a measurement, with numbers that are made up: 50 points on the way up and 50 on the way
down, in microsiemens. Your own file takes its place.
"""

from pathlib import Path

import torch

import eqprop as ep
from eqprop.devices import MixedPrecision, Table, pull
from eqprop.tasks import load_images


def main(epochs: int = 10) -> float:
    torch.manual_seed(0)
    data = load_images("digits")
    layers = [ep.DenseLayer(64, ep.hard_sigmoid), ep.DenseLayer(10, ep.identity)]
    network = ep.chain((1, 8, 8), layers, ep.SquaredError)
    settle = ep.FixedSweeps(8)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.3), settle, settle), on_unsettled="ignore")

    device = Table.from_csv(Path(__file__).with_suffix(".csv"), step_spread=0.1)  # one was measured; others differ
    print(f"{1 / device.granularity:.0f} pulses from the middle to an end, noise of a pulse {device.cycle_noise:.0%}.")
    print(pull(device, gradient_size=0.1))
    optimizer = MixedPrecision(network.named_parameters(), device, lr=0.1)
    for _ in range(epochs):
        for batch in torch.randperm(len(data.train)).split(32):
            optimizer.zero_grad()
            model.loss(data.train.pixels[batch] / 255, data.train.labels[batch]).backward()
            optimizer.step()
    print(optimizer.metrics())
    return float((model(data.test.pixels / 255).argmax(1) == data.test.labels).double().mean())


if __name__ == "__main__":
    print(f"test accuracy {main():.3f}")
