"""Activations: minimisers of what they say they minimise, and differences that neither cancel nor break."""

import pytest
import torch
from terms import ACTIVATIONS, WITHOUT_POTENTIAL

import eqprop as ep

BOUNDED = [a for a in ACTIVATIONS if a is not ep.identity]
EVERY = [*ACTIVATIONS, *WITHOUT_POTENTIAL]
SMOOTH = [ep.sigmoid, ep.energy.half_sigmoid, ep.tanh, ep.energy.Sigmoid(3.0, 0.1)]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_no_small_step_inside_the_range_lowers_the_cost(activation):
    drives = torch.linspace(-2, 2, 401, dtype=torch.float64)
    states = activation.response(drives)
    low, high = activation.response(torch.tensor([-1e3, 1e3], dtype=torch.float64))
    cost = activation.potential(states) - drives * states
    for step in (1e-1, 1e-3, -1e-3, -1e-1):
        moved = (states + step).clamp(low, high)
        assert bool((activation.potential(moved) - drives * moved >= cost - 1e-14).all()), step


@pytest.mark.parametrize("activation", [*SMOOTH, ep.identity], ids=str)
def test_the_potentials_slope_is_the_drive_that_the_response_answers(activation):
    drives = torch.linspace(-1.5, 1.5, 61, dtype=torch.float64)
    states = activation.response(drives).requires_grad_()
    (slope,) = torch.autograd.grad(activation.potential(states).sum(), states)
    torch.testing.assert_close(slope, drives, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", BOUNDED, ids=str)
def test_saturated_units_are_finite(activation, dtype):
    drives = torch.tensor([-1e4, -50.0, 50.0, 1e4], dtype=dtype)
    states = activation.response(drives)
    assert bool(states.isfinite().all())
    assert bool(activation.potential(states).isfinite().all())


@pytest.mark.parametrize("size", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("activation", EVERY, ids=str)
def test_differences_keep_their_precision_in_single(activation, size):
    """Relative to what two responses in double say, on the part of the range that is not saturated."""
    drives = torch.linspace(0.05, 0.45, 41)
    change = size * torch.linspace(-1, 1, 40).repeat_interleave(2)[:41]
    expected = activation.response(drives.double() + change.double()) - activation.response(drives.double())
    found = activation.difference(drives, change).double()
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-5 * size)


@pytest.mark.parametrize("activation", EVERY, ids=str)
def test_differences_compose_and_vanish_with_the_change(activation):
    torch.manual_seed(0)
    drive, one, two = 0.5 * torch.randn(3, 500, dtype=torch.float64)  # far from saturation, whose digits see below
    both = activation.difference(drive, one) + activation.difference(drive + one, two)
    torch.testing.assert_close(activation.difference(drive, one + two), both, rtol=1e-9, atol=1e-9)
    assert not activation.difference(drive, torch.zeros_like(drive)).any()


@pytest.mark.parametrize("activation", [*SMOOTH, *WITHOUT_POTENTIAL], ids=str)
def test_differences_from_a_saturated_unit(activation):
    drives = torch.tensor([12.0, 12.0, 12.0, -12.0, -12.0])
    change = torch.tensor([-24.0, -12.5, -11.0, 24.0, 12.5])
    expected = activation.response((drives + change).double()) - activation.response(drives.double())
    torch.testing.assert_close(activation.difference(drives, change), expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: ep.energy.Clip(slope=0.0),
        lambda: ep.energy.Clip(low=1.0, high=1.0),
        lambda: ep.energy.Sigmoid(slope=-1.0),
    ],
)
def test_settings_that_cannot_be(bad):
    with pytest.raises(ep.InputError, match=r"slope"):
        bad()


@pytest.mark.parametrize("gain", [1.0, 40.0])
def test_the_smooth_clip_is_the_published_one_and_clips_where_its_gain_is_large(gain):
    z = torch.linspace(-6, 6, 241, dtype=torch.float64)
    found = ep.energy.SmoothClip(gain).response(z)
    published = z / 2 * torch.sigmoid(gain * z) + (1 - z / 2) * torch.sigmoid(gain * (z - 2))
    torch.testing.assert_close(found, published, rtol=1e-12, atol=1e-12)
    assert float((found - ep.energy.half_hard_sigmoid.response(z)).abs().max()) < 0.2 / gain
    ends = torch.tensor([-1e4, -200.0, 200.0, 1e4])
    torch.testing.assert_close(ep.energy.SmoothClip(gain).response(ends), torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_the_smooth_clip_has_no_energy_of_its_own_and_says_so():
    assert float(ep.energy.smooth_clip.response(torch.tensor(-2.0))) < 0
    with pytest.raises(ep.InputError, match="not monotone"):
        ep.energy.smooth_clip.potential(torch.tensor(0.5))
    with pytest.raises(ep.InputError, match="gain"):
        ep.energy.SmoothClip(0.0)


TELLING = [each for each in EVERY if each.has_slope_at]


@pytest.mark.parametrize("activation", TELLING, ids=str)
def test_the_slope_at_a_state_is_that_at_its_drive(activation):
    drives = torch.linspace(-3, 3, 601, dtype=torch.float64, requires_grad=True)
    states = activation.response(drives)
    (slope,) = torch.autograd.grad(states.sum(), drives)
    torch.testing.assert_close(activation.slope_at(states.detach()), slope, rtol=1e-9, atol=1e-12)


def test_a_unit_with_another_response_does_not_inherit_the_slope():
    class Leaky(ep.energy.Clip):
        def response(self, drive, stiffness=0.0):
            return super().response(drive, stiffness) + 0.1 * drive

    class Same(ep.energy.Clip):
        pass

    assert ep.hard_sigmoid.has_slope_at and Same().has_slope_at  # noqa: PT018
    assert not Leaky().has_slope_at
    with pytest.raises(ep.InputError, match="at a drive"):
        ep.energy.smooth_clip.slope_at(torch.zeros(2))
