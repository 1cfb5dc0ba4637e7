"""Analogue products and updates by trains of pulses: held to aihwkit's, and to their laws."""

import math
from dataclasses import replace

import pytest
import torch
from recorded import RECORDED

from eqprop.devices import Converters, analogue_product, coincidences

W, X = (torch.from_numpy(RECORDED[f"io.{name}"]) for name in "WX")
PRODUCTS = {
    "plain": Converters(scaled=False, out_noise=0.0),
    "abs_max": Converters(out_noise=0.0),
    "abs_max_iterative_bound1": Converters(out_noise=0.0, out_bound=1.0, halvings=10),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_entry_of_the_product_is_aihwkits(name):
    """To rounding: one step of the converter is thousands of times larger."""
    found = analogue_product(X, W, PRODUCTS[name])
    assert (found - torch.from_numpy(RECORDED[f"io.{name}"])).abs().max() < 1e-6


def test_fine_converters_give_the_exact_product():
    exact = Converters(in_step=0.0, out_step=0.0, out_noise=0.0)
    torch.testing.assert_close(analogue_product(X, W, exact), X @ W.T)
    assert torch.equal(analogue_product(0 * X, W, exact), torch.zeros(5, 6))
    errors = [
        float((analogue_product(X, W, replace(exact, in_step=step, out_step=step)) - X @ W.T).square().mean().sqrt())
        for step in (1e-2, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.3)


def test_noise_has_its_size_and_scales_with_the_input():
    generator = torch.Generator().manual_seed(0)
    noisy = Converters(in_step=0.0, out_step=0.0, out_noise=0.06, in_noise=0.1)
    x = 3 * torch.ones(4000, 8) * torch.tensor([1.0] * 4 + [0.5] * 4)
    error = analogue_product(x, W, noisy, generator) - x @ W.T
    law = 3 * (0.06**2 + 0.1**2 * W.square().sum(1)).sqrt()
    torch.testing.assert_close(error.std(0), law, rtol=0.05, atol=0)


TRAINS = {"bl31": (False, False), "bl31_um": (True, False), "bl31_ublm": (True, True)}


@pytest.mark.parametrize("name", TRAINS)
def test_trains_of_pulses_have_aihwkits_means_and_deviations(name):
    balanced, fitted = TRAINS[name]
    x, d = (torch.from_numpy(RECORDED[f"pulses.{each}"]).ravel() for each in "xd")
    generator, rate, step = torch.Generator().manual_seed(0), 0.01, 0.001
    drawn = torch.stack(
        [-step * coincidences(d, x, rate, step, 31, balanced, fitted, generator) for _ in range(4000)]
    ).double()
    mean, deviation = (torch.from_numpy(RECORDED[f"pulses.{name}.{each}"]).double() for each in ("mean", "std"))
    assert float((drawn.mean(0) - mean).norm() / mean.norm()) < 0.1
    length = math.ceil(rate * 0.8 / step) if fitted else 31
    q = rate * torch.outer(d, x).abs() / (step * length)
    law = step * (length * q * (1 - q)).clamp(0).sqrt()
    sure = q > 0.99
    for found in (drawn.std(0), deviation.view(3, 4)):
        assert ((found - law).abs()[~sure] < 0.1 * law[~sure]).all()
        assert float(found[sure].abs().sum()) < 1e-6


def test_no_gradient_makes_no_pulse():
    assert not coincidences(torch.zeros(3), torch.ones(2), 0.1, 0.01).any()
