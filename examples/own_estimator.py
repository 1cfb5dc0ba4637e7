"""Your own estimator, compared with the exact gradient and with other estimators; it needs no registration."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor

import eqprop as ep
from eqprop import diagnostics
from eqprop.tasks import load_images


@dataclass(frozen=True)
class WeightPerturbation(ep.Estimator):
    """The slope of the loss along random directions of all weights, averaged (Dembo & Kailath 1990)."""

    free: ep.Solver
    directions: int
    size: float = 1e-3

    def __call__(self, landscape: ep.energy.Landscape) -> tuple[ep.Solution, object]:
        @torch.no_grad()
        def learn(cost: ep.learning.Cost, parameters: Sequence[Tensor]) -> ep.learning.GradientEstimate:
            def loss(directions: Sequence[Tensor], size: float) -> Tensor:
                moved = {id(p): p + size * direction for p, direction in zip(parameters, directions, strict=True)}
                shaken = landscape.rebuilt(moved)  # the network keeps its own weights
                state = self.free(shaken, shaken.zeros()).state
                return cost.mean(cost.with_tensors(moved).values(shaken, state))

            found = [torch.zeros_like(parameter) for parameter in parameters]
            for _ in range(self.directions):
                directions = [torch.randn_like(parameter) for parameter in parameters]
                slope = (loss(directions, self.size) - loss(directions, -self.size)) / (2 * self.size)
                found = [
                    g + slope * direction / self.directions for g, direction in zip(found, directions, strict=True)
                ]
            return ep.learning.GradientEstimate(tuple(found))

        return self.free(landscape, landscape.zeros()), learn


def main(directions: int = 1000) -> float:
    torch.manual_seed(0)
    images = load_images("digits").train
    x = torch.nn.functional.avg_pool2d(images.pixels[:20] / 255, 2).double()  # 4 x 4: few weights need few directions
    network = ep.chain((1, 4, 4), [ep.DenseLayer(8, ep.tanh), ep.DenseLayer(10, ep.tanh)], ep.SquaredError).double()
    settle = ep.FixedSweeps(15)
    estimators = {
        "my own, 100 directions": WeightPerturbation(settle, 100),
        f"my own, {directions} directions": WeightPerturbation(settle, directions),
        "one-sided 0.1": ep.EquilibriumPropagation(ep.one_sided(0.1), settle, settle),
        "symmetric 0.1": ep.EquilibriumPropagation(ep.symmetric(0.1), settle, settle),
    }
    found = diagnostics.compare(network, x, images.labels[:20], estimators)
    Console().print(found.table("Gradients of 226 weights, compared with the exact one"))
    return found.of(f"my own, {directions} directions").cosine


if __name__ == "__main__":
    print(f"cosine {main():.3f}")
