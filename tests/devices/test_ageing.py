"""Memory that ages: held to aihwkit's moments, and to what compensation gains."""

import math

import pytest
import torch
from recorded import RECORDED

import eqprop as ep
from eqprop.devices import DAY, HOUR, YEAR, Filamentary, PhaseChange, compensated

AGES = {"0": 0.0, "1": 1.0, "3600": HOUR, "86400": DAY, "31536000": YEAR}


@pytest.mark.parametrize("name", AGES)
def test_phase_change_has_aihwkits_means_and_deviations(name):
    w = torch.from_numpy(RECORDED["pcm.w"]).double()
    generator = torch.Generator().manual_seed(0)
    found = PhaseChange().weights(w.expand(40000, -1), AGES[name], generator)
    mean, deviation = (torch.from_numpy(RECORDED[f"pcm.{name}.{each}"]).double() for each in ("mean", "std"))
    assert (found.mean(0) - mean).abs().max() < 0.004
    assert (found.std(0) - deviation).abs().max() < 0.004


def test_compensation_undoes_the_mean_drift():
    """Relative errors of a product, as in the source's table: an hour costs 0.247, compensated 0.129."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(256, 784, generator=generator, dtype=torch.float64) * 0.3 / 28
    w = w.clamp(-3 * w.std(), 3 * w.std())
    x = torch.rand(200, 784, generator=generator, dtype=torch.float64)
    exact, then = x @ w.T, PhaseChange().weights(w, 0.0, generator)

    def error(weights):
        return float((x @ weights.T - exact).norm() / exact.norm())

    aged = PhaseChange().weights(w, HOUR, generator)
    assert error(then) == pytest.approx(0.087, abs=0.01)
    assert error(aged) == pytest.approx(0.247, abs=0.01)
    assert error(compensated(aged, then)) == pytest.approx(0.129, abs=0.01)


def test_signs_and_scale_of_weights_are_kept():
    w = torch.tensor([[-3.0, 0.0, 1.5]], dtype=torch.float64).expand(4000, -1)
    mean = PhaseChange().weights(w, 0.0, torch.Generator().manual_seed(0)).mean(0)
    torch.testing.assert_close(mean, w[0], rtol=0, atol=0.02)
    assert PhaseChange().weights(torch.zeros(2, 2)).abs().max() < 0.1


@pytest.mark.parametrize("age", [1.0, DAY, 2 * DAY])
def test_filaments_spread_by_their_polynomial(age):
    memory, share = Filamentary(), torch.full((40000,), 0.6, dtype=torch.float64)
    found = memory.cells(share, age, torch.Generator().manual_seed(0))
    law = sum(c * 0.6**i for i, c in enumerate(memory.errors[age]))
    assert float(found.mean()) == pytest.approx(24.0, abs=4 * law / math.sqrt(40000))
    assert float(found.std()) == pytest.approx(law, rel=0.02)


def test_an_age_of_which_nothing_is_known_is_refused():
    with pytest.raises(ep.InputError, match="the age of 5 s"):
        Filamentary().weights(torch.ones(2), 5.0)
