"""Fixtures of the autograd contract: double precision, and every estimator on every network that it takes."""

import pytest
import torch
from estimators import CASES, SETTINGS, named


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=SETTINGS, ids=named)
def setting(request):
    """An estimator and a network."""
    return request.param


@pytest.fixture(params=CASES, ids=named)
def case(request):
    """An estimator, for tests that a dense network serves."""
    return request.param
