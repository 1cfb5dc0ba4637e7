"""Data sets of research, where they lie beside the checkout."""

from pathlib import Path

import pytest
import torch

from eqprop.tasks import load_images

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("folder", "shape"),
    [("mnist", (1, 28, 28)), pytest.param("cifar10", (3, 32, 32), marks=pytest.mark.long)],
)
def test_a_shared_data_set(folder, shape):
    if not (SHARED / folder).exists():
        pytest.skip(f"shared/data/{folder} is not beside this checkout")
    images = load_images(SHARED / folder).test
    assert images.pixels.shape == (10000, *shape)
    assert images.classes == 10
    assert torch.bincount(images.labels).min() > 800
