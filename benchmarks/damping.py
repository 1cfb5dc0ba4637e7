"""What damping and unfinished sweeps do to the gradient of a trained network, layer by layer.

    python benchmarks/damping.py --data CIFAR10 --weights RUN/last-....safetensors [--images 48]

The network of ``cifar10-ce-fast`` (Laborieux et al. 2021, doi 10.3389/fnins.2021.633674). Of each weight tensor, from
the input on: the cosine with the exact gradient at the equilibrium (settled to 1e-5, an undamped response to 1e-7, in
float32), and the length over that of the exact gradient.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from common import Row, gradients, images, load, machine, paper_network, show, write
from torch.nn import functional as F

import eqprop as ep
from eqprop.recipes.setting import fast
from eqprop.settling import ConjugateGradients

SIDES = (
    # free tolerance, free sweeps, response iterations, damping
    (1e-5, 400, 200, 0.25),
    (1e-5, 400, 200, 0.05),
    (1e-5, 400, 4, 0.0),
    (0.2, 60, 4, 0.25),
    (0.2, 60, 4, 0.0),
    (1e-9, 8, 4, 0.25),
    (1e-9, 8, 4, 0.0),
    (1e-9, 12, 4, 0.0),
)


def estimator(tolerance: float, sweeps: int, iterations: int, damping: float) -> ep.Estimator:
    return replace(fast(tolerance, sweeps, iterations, damping), response=ConjugateGradients(iterations, 1e-7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", type=int, default=48)
    options = parser.parse_args()
    network = paper_network()
    load(network, options.weights)
    x, y = images(options.data, options.images)
    exact, free = gradients(ep.Equilibrium(network, estimator(1e-5, 400, 200, 0.0)), "float32", x, y)
    print(f"at rest after {free.sweeps.float().mean():.1f} sweeps, the slowest image after {int(free.sweeps.max())}")
    rows: list[Row] = []
    for tolerance, sweeps, iterations, damping in SIDES:
        model = ep.Equilibrium(network, estimator(tolerance, sweeps, iterations, damping), on_unsettled="ignore")
        found, free = gradients(model, "float32", x, y)
        pairs = list(zip(found, exact, strict=True))
        rows.append(
            {
                "free tolerance": tolerance,
                "mean sweeps": float(free.sweeps.float().mean()),
                "iterations": iterations,
                "damping": damping,
                "cosines": " ".join(f"{float(F.cosine_similarity(a.flatten(), b.flatten(), 0)):.3f}" for a, b in pairs),
                "lengths": " ".join(f"{float(a.norm() / b.norm()):.2f}" for a, b in pairs),
            }
        )
    show(f"{options.images} test images", rows)
    write("damping", {"machine": machine(), "rows": rows})
    print(machine())


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
