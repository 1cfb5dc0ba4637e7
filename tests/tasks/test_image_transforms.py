"""Normalisation, and random changes of images."""

import numpy as np
import pytest
import torch
from pictures import fake

from eqprop.errors import InputError
from eqprop.tasks import Crop, Cutout, Flip, Images, Normalise


def test_a_crop_is_a_window_of_the_edge_padded_image():
    images = torch.rand(64, 2, 7, 5)
    padding = 3
    padded = torch.nn.functional.pad(images, (padding,) * 4, mode="replicate")
    windows = padded.unfold(2, 7, 1).unfold(3, 5, 1)  # (batch, channels, down, right, 7, 5)
    cropped = Crop(padding)(images, torch.Generator().manual_seed(0))
    same = (windows == cropped[:, :, None, None]).all(dim=(-1, -2)).all(dim=1)
    assert same.flatten(1).any(dim=1).all()
    places = {divmod(int(place), 2 * padding + 1) for place in same.flatten(1).int().argmax(dim=1)}
    assert len(places) > 20, "each image has a window of its own"
    assert {down for down, _ in places} == {right for _, right in places} == set(range(2 * padding + 1))


def test_a_crop_without_padding_changes_nothing():
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(Crop(0)(images, torch.Generator()), images)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
def test_a_cutout_is_one_square_of_any_place(size):
    images = 1 + torch.rand(2000, 2, 6, 5)
    cut = Cutout(size)(images, torch.Generator().manual_seed(0))
    holes = (cut == 0).all(dim=1)
    assert torch.equal(cut, torch.where(holes[:, None], 0, images))
    assert torch.equal(holes, holes.any(2)[:, :, None] & holes.any(1)[:, None, :])  # rectangles
    assert int(holes.any(2).sum(1).max()) == min(size, 6)
    if size:
        # Each pixel within `size` of an edge is cut as often as there are centres that reach it.
        reached = [
            sum(0 <= place - centre + size // 2 < size for centre in range(pixels)) / pixels
            for pixels in (6, 5)
            for place in range(pixels)
        ]
        expected = torch.tensor(reached[:6])[:, None] * torch.tensor(reached[6:])
        assert (holes.float().mean(0) - expected).abs().max() < 0.05


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_mirror_whole_images_at_their_rate(probability):
    images = torch.rand(4000, 2, 3, 4)
    flipped = Flip(probability)(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(dim=1)
    kept = (flipped == images).flatten(1).all(dim=1)
    assert (mirrored ^ kept).all()
    assert abs(mirrored.float().mean() - probability) < 0.03


def test_normalise():
    pixels = fake(4, channels=3).pixels
    mean, std = (0.1, 0.2, 0.3), (1.0, 2.0, 4.0)
    expected = (pixels.numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    result = Normalise(mean, std)(pixels)
    assert result.dtype == torch.float32
    assert np.allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_measured_gives_mean_0_and_std_1_a_channel(channels):
    images = fake(5000, channels=channels, size=3)
    normalise = Normalise.measured(images)
    exact = images.pixels.numpy() / 255
    assert np.allclose(normalise.mean, exact.mean((0, 2, 3)), atol=1e-12)
    assert np.allclose(normalise.std, exact.std((0, 2, 3)), atol=1e-12)
    done = normalise(images.pixels).double()
    assert done.mean((0, 2, 3)).abs().max() < 1e-6
    assert (done.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_channel_of_one_value_is_measured_with_std_1(value):
    images = Images(torch.full((3, 1, 2, 2), value, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), 1)
    assert Normalise.measured(images) == Normalise((value / 255,), (1.0,))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Normalise((0.0,), (0.0,)),
        lambda: Normalise((0.0,), (-1.0,)),
        lambda: Normalise((float("nan"),), (1.0,)),
        lambda: Normalise((0.0, 0.0), (1.0,)),
        lambda: Normalise((0.0, 0.0), (1.0, 1.0))(fake().pixels),
        lambda: Flip(1.5),
        lambda: Crop(-1),
        lambda: Cutout(-1),
        lambda: Cutout(8)(torch.rand(2, 1, 8, 9), torch.Generator()),
    ],
)
def test_numbers_that_do_not_fit(build):
    with pytest.raises(InputError):
        build()
