"""Maps of every geometry, drawn at random: in both directions, and against the modules of PyTorch."""

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

import eqprop as ep
from eqprop import testing
from eqprop.energy.maps import ModuleMap

small = st.integers(1, 3)
pairs = st.one_of(small, st.tuples(small, small))
paddings = st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2)))
pools = st.one_of(
    st.none(),
    st.builds(ep.MaxPool, small, st.one_of(st.none(), small)),
    st.builds(ep.AveragePool, small, st.one_of(st.none(), small)),
    st.builds(ep.energy.SoftPool, small),
)
QUICK = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])


@QUICK
@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=pairs, stride=pairs, padding=paddings, dilation=pairs, groups=st.sampled_from([1, 2, 4]), pool=pools,
)  # fmt: skip
def test_convolutions_of_every_geometry(size, kernel, stride, padding, dilation, groups, pool):
    torch.manual_seed(0)
    try:
        conv = ep.Convolution((4, *size), 8, kernel, stride, padding, dilation, groups, pool)
    except ep.InputError:
        assume(False)
    testing.check_map(conv)
    conv = conv.double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    z = F.conv2d(x, conv.weight, None, stride, padding, dilation, groups)
    if isinstance(pool, ep.MaxPool):
        z = F.max_pool2d(z, pool.size, pool.step)
    elif isinstance(pool, ep.AveragePool):
        z = F.avg_pool2d(z, pool.size, pool.step)
    elif isinstance(pool, ep.energy.SoftPool):
        columns = F.unfold(z, pool.size, stride=pool.size).unflatten(1, (8, -1))
        z = (columns.softmax(2) * columns).sum(2).view(2, *conv.out_shape)
    torch.testing.assert_close(conv(x), z)


@QUICK
@given(
    kernel=st.integers(1, 6),
    stride=small,
    size=st.integers(1, 6),
    pool=st.sampled_from([ep.MaxPool, ep.energy.SoftPool]),
)
def test_what_does_not_fit_is_refused_and_nothing_else_is(kernel, stride, size, pool):
    reaches = (size - kernel) // stride + 1 if size >= kernel else 0
    if reaches >= 2:
        assert ep.Convolution((1, size, size), 1, kernel, stride, pool=pool(2)).out_shape[1] == reaches // 2
    else:
        with pytest.raises(ep.InputError, match="does not fit"):
            ep.Convolution((1, size, size), 1, kernel, stride, pool=pool(2))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.MaxPool2d(2)), (2, 9, 8)),
        (nn.Sequential(nn.Conv2d(2, 4, 3, groups=2, bias=False), nn.AvgPool2d(3, 1)), (2, 7, 7)),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2)),
        (nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 3, 3)), (8,)),
        (nn.ConvTranspose2d(3, 2, 2, stride=2), (3, 4, 4)),
    ],
    ids=lambda value: str(value).replace("\n", ""),
)
def test_modules_of_pytorch(module, shape):
    torch.manual_seed(0)
    testing.check_map(ModuleMap(module, shape))


@pytest.mark.parametrize(("pool", "theirs"), [(None, None), (ep.MaxPool(2), nn.MaxPool2d(2))])
def test_a_convolution_and_the_module_that_says_the_same_agree_in_both_directions(pool, theirs):
    torch.manual_seed(0)
    ours = ep.Convolution((2, 6, 7), 3, 3, padding=1, pool=pool).double()
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=False).double()
    conv.weight = ours.weight
    other = ModuleMap(nn.Sequential(conv, *([theirs] if theirs else [])), (2, 6, 7))
    assert other.out_shape == ours.out_shape
    pre = torch.randn(2, 2, 6, 7, dtype=torch.float64)
    post = torch.randn(2, *ours.out_shape, dtype=torch.float64)
    torch.testing.assert_close(ours(pre), other(pre))
    torch.testing.assert_close(ours.transpose(pre, post), other.transpose(pre, post))


def test_max_pools_tie_goes_to_one_winner():
    value, push, pull = ep.MaxPool(2).linearize(torch.zeros(1, 1, 4, 4))[:3]
    post = torch.ones(1, 1, 2, 2)
    assert pull(post).sum() == 4
    assert set(pull(post).flatten().tolist()) == {0.0, 1.0}
    assert not value.any()
    torch.testing.assert_close(push(pull(post)), post)  # the winner it pushes is the one it pulls


def test_a_pull_carries_the_graph_of_the_weights():
    """What learning differentiates through: d/dW <transpose(pre, post), v> = d/dW <J(pre) v, post>."""
    torch.manual_seed(0)
    for pool in (None, ep.MaxPool(3, 2), ep.AveragePool(2), ep.energy.SoftPool(2)):
        conv = ep.Convolution((2, 7, 7), 3, 3, padding=1, pool=pool).double()
        pre, v = torch.randn(2, 2, 2, 7, 7, dtype=torch.float64)
        post = torch.randn(2, *conv.out_shape, dtype=torch.float64)
        down = torch.autograd.grad((conv.transpose(pre, post) * v).sum(), conv.weight)[0]
        up = torch.autograd.grad((torch.func.jvp(conv.forward, (pre,), (v,))[1] * post).sum(), conv.weight)[0]
        torch.testing.assert_close(down, up, msg=lambda text, pool=pool: f"{pool}: {text}")


def test_kernels_start_as_those_of_pytorch():
    torch.manual_seed(0)
    kernel = ep.Convolution((3, 8, 8), 5, 3).weight
    torch.manual_seed(0)
    assert torch.equal(kernel, nn.Conv2d(3, 5, 3, bias=False).weight)
