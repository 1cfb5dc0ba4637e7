"""An estimator of your own, held against the exact gradient beside ours: nothing to register."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor

import eqprop as ep
from eqprop import diagnostics
from eqprop.training.data import load_images


@dataclass(frozen=True)
class WeightPerturbation(ep.Estimator):
    """Shake all weights at once and see how the loss changes; the mean over many shakes (Dembo & Kailath 1990)."""

    free: ep.Solver
    shakes: int
    size: float = 1e-3

    def __call__(self, landscape: ep.energy.Landscape) -> tuple[ep.Solution, object]:
        @torch.no_grad()
        def learn(cost: ep.learning.Cost, parameters: Sequence[Tensor]) -> ep.learning.GradientEstimate:
            def loss(sizes: float) -> Tensor:
                for parameter, weight, shake in zip(parameters, weights, shakes, strict=True):
                    parameter.copy_(weight + sizes * shake)
                shaken = landscape.rebuilt()
                return cost.values(shaken, self.free(shaken, shaken.zeros()).state).mean()

            weights = [parameter.clone() for parameter in parameters]
            found = [torch.zeros_like(weight) for weight in weights]
            for _ in range(self.shakes):
                shakes = [torch.randn_like(weight) for weight in weights]
                slope = (loss(self.size) - loss(-self.size)) / (2 * self.size)
                found = [g + slope * shake / self.shakes for g, shake in zip(found, shakes, strict=True)]
            loss(0.0)  # the weights as they were
            return ep.learning.GradientEstimate(tuple(found))

        return self.free(landscape, landscape.zeros()), learn


def main() -> float:
    torch.manual_seed(0)
    images = load_images("digits", "train").take(20)
    x = torch.nn.functional.avg_pool2d(images.pixels / 255, 2).double()  # 4 x 4: few weights need few shakes
    network = ep.chain((1, 4, 4), [ep.DenseLayer(8, ep.tanh), ep.DenseLayer(10, ep.tanh)], ep.SquaredError).double()
    settle = ep.FixedSweeps(15)
    estimators = {
        "my own, 100 shakes": WeightPerturbation(settle, 100),
        "my own, 1000 shakes": WeightPerturbation(settle, 1000),
        "one-sided 0.1": ep.EquilibriumPropagation(ep.one_sided(0.1), settle, settle),
        "symmetric 0.1": ep.EquilibriumPropagation(ep.symmetric(0.1), settle, settle),
    }
    found = diagnostics.compare(network, x, images.labels, estimators)
    Console().print(found.table("Gradients of 226 weights, against the exact one"))
    return found.of("my own, 1000 shakes").cosine


if __name__ == "__main__":
    print(f"cosine {main():.3f}")
