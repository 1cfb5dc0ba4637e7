"""Devices: held to aihwkit's, and to the laws of their equations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from recorded import RECORDED, trajectory

import eqprop as ep
from eqprop import devices
from eqprop.devices import Constant, DeviceCells, Linear, Pair, Power, SoftBounds, Table

EXACT = {
    "step_spread": 0.0,
    "up_down_spread": 0.0,
    "low_spread": 0.0,
    "high_spread": 0.0,
    "cycle_noise": 0.0,
}
KINDS = {
    "constant": (Constant(step=0.01, up_down=0.2, low=-0.5, high=0.6, **EXACT), 100),
    "linear": (Linear(step=0.01, low=-0.8, high=1.0, up_slope=0.3, down_slope=0.6, **EXACT), 300),
    "soft": (SoftBounds(step=0.01, low=-0.75, high=1.25, **EXACT), 300),
    "soft_reference": (SoftBounds(step=0.01, low=-0.75, high=1.25, up_down=-0.3, from_symmetry=True, **EXACT), 300),
    "reram_es": (replace(devices.RERAM_ES, write_noise=0.0, **EXACT), 600),
    "pcm": (replace(devices.PCM, **EXACT), 60),
    "power": (Power(step=0.02, low=-1.0, high=1.0, exponent=2.0, **EXACT), 300),
    "piecewise": (Table(step=0.01, low=-1.0, high=1.0, up=(1.5, 1.0, 0.2), down=(0.1, 0.8, 1.4), **EXACT), 300),
}
SPREAD = dict.fromkeys(EXACT, 0.2)
NOISELESS = {name: replace(device, **SPREAD | {"cycle_noise": 0.0}) for name, (device, _) in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_pulses_are_those_of_aihwkit(name):
    device, n = KINDS[name]
    found = trajectory(device.cells((1,), dtype=torch.float32), torch.zeros(1), n)
    assert np.abs(found.numpy().ravel() - RECORDED[name].ravel()).max() < 3e-6


def test_devices_that_differ_are_those_of_aihwkit():
    hidden = {
        name: RECORDED[f"reram_sb_spread.hidden.{name}"]
        for name in ("dwmin_up", "dwmin_down", "min_bound", "max_bound")
    }
    up, down, low, high = map(torch.from_numpy, hidden.values())
    device = replace(devices.RERAM_SB, **EXACT)
    cells = DeviceCells(device=device, up=up, down=down, low=low, high=high, reference=torch.zeros(4, 5))
    found = trajectory(cells, torch.zeros(4, 5), 200)
    assert np.abs(found.numpy() - RECORDED["reram_sb_spread"]).max() < 1e-6


@pytest.mark.parametrize("name", NOISELESS)
def test_many_pulses_are_as_many_single_ones(name):
    cells = NOISELESS[name].cells((200,), seed=1, dtype=torch.float64)
    counts = torch.arange(200, dtype=torch.float64) - 100
    values = cells.programmed(torch.linspace(-0.7, 0.7, 200, dtype=torch.float64))
    single = values
    for done in range(100):
        single = cells.pulsed(single, counts.sign() * (counts.abs() > done))
    torch.testing.assert_close(cells.pulsed(values, counts), single, rtol=0, atol=1e-12)
    assert (single - values).abs().max() > 0.1


@pytest.mark.parametrize("name", NOISELESS)
def test_small_pulses_tend_to_the_limit_of_no_granularity(name):
    """The distance falls with the first power of the step."""
    amounts = torch.linspace(-0.4, 0.4, 41, dtype=torch.float64)
    errors = []
    for finer in (1, 2):
        device = replace(NOISELESS[name], step=NOISELESS[name].step / finer)
        counts = (amounts / device.granularity).round()
        cells = device.cells((41,), seed=1, dtype=torch.float64)
        start = cells.programmed(torch.zeros(41, dtype=torch.float64))
        flowed = cells.flowed(start, counts * device.granularity)
        errors.append(float((cells.pulsed(start, counts) - flowed).abs().max()))
        assert (flowed - start).abs().max() > 0.1
    assert errors[0] < (0.15 if name == "pcm" else 0.02)
    if name == "constant":
        assert max(errors) < 1e-12
    else:
        assert errors[1] / errors[0] == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("name", ["constant", "linear", "soft"])
def test_the_noise_of_many_pulses_is_that_of_single_ones(name, additive):
    device = replace(KINDS[name][0], step=0.005, cycle_noise=0.3, additive=additive)
    cells = device.cells((4000,), dtype=torch.float64)
    counts = torch.full((4000,), 40.0, dtype=torch.float64)
    generator, values = torch.Generator().manual_seed(0), torch.zeros(4000, dtype=torch.float64)
    single = values
    for _ in range(40):
        single = cells.pulsed(single, counts.sign(), generator)
    found = cells.pulsed(values, counts, generator)
    assert float(found.std() / single.std()) == pytest.approx(1, abs=0.06)
    assert float(found.mean() - single.mean()) == pytest.approx(0, abs=5 * float(single.std()) / 60)


def test_spreads_have_the_size_that_is_asked_for():
    device = SoftBounds(
        step=0.01,
        low=-0.8,
        high=1.0,
        up_down=0.2,
        step_spread=0.1,
        up_down_spread=0.05,
        low_spread=0.02,
        high_spread=0.03,
    )
    cells = device.cells((20000,), dtype=torch.float64)
    for tensor, mean, spread in (
        (cells.up, 0.01, 0.01 * (0.1**2 + 0.05**2) ** 0.5),
        (cells.down, 0.008, 0.01 * (0.1**2 + 0.05**2) ** 0.5),
        (cells.high, 1.0, 0.03),
        (cells.low, -0.8, 0.016),
    ):
        assert float(tensor.mean()) == pytest.approx(mean, abs=4 * spread / 20000**0.5)
        assert float(tensor.std()) == pytest.approx(spread, rel=0.03)
    assert float(torch.corrcoef(torch.stack([cells.up, cells.down]))[0, 1]) == pytest.approx(0.6, abs=0.02)


def test_cells_depend_on_seed_and_name_alone():
    def tensors(**options):
        cells = devices.RERAM_ARRAY_OM.cells((3, 4), **options)
        return torch.stack([cells.up, cells.down, cells.low, cells.high, cells.reference])

    first = tensors(seed=1, name="a", dtype=torch.float64)
    torch.rand(7)
    assert torch.equal(first, tensors(seed=1, name="a", dtype=torch.float64))
    assert torch.equal(first.float(), tensors(seed=1, name="a", dtype=torch.float32))
    for other in ({"seed": 2, "name": "a"}, {"seed": 1, "name": "b"}):
        assert (first != tensors(**other, dtype=torch.float64)).all(1).all() or (first != tensors(**other)).any()


def test_at_the_symmetry_point_pulses_cancel():
    for name, device in NOISELESS.items():
        cells = device.cells((50,), dtype=torch.float64)
        point = cells.symmetry_point()
        if name == "constant":
            assert point.isnan().all()
            continue
        assert point.isfinite().float().mean() > 0.9
        up, down = device.response(cells, point)
        there = point.isfinite()
        torch.testing.assert_close((cells.up * up)[there], (cells.down * down)[there], rtol=1e-9, atol=1e-12)


def test_up_goes_up_and_down_goes_down():
    for device in (*NOISELESS.values(), Pair(device=NOISELESS["pcm"])):
        cells = device.cells((20,), dtype=torch.float64)
        values = cells.programmed(torch.full((20,), 0.1, dtype=torch.float64))
        ones = torch.ones(20, dtype=torch.float64)
        assert (cells.read(cells.pulsed(values, ones)) > cells.read(values)).all()
        assert (cells.read(cells.pulsed(values, -ones)) < cells.read(values)).all()
        assert torch.equal(cells.pulsed(values, 0 * ones), values)


def test_stuck_devices_stay_and_others_do_not():
    device = replace(KINDS["soft_reference"][0], stuck=0.2, stuck_range=0.05)
    cells = device.cells((5000,), dtype=torch.float64)
    values = cells.programmed(torch.full((5000,), 0.3, dtype=torch.float64))
    moved = cells.pulsed(values, torch.full((5000,), 5.0, dtype=torch.float64))
    stays = values == moved
    assert float(stays.double().mean()) == pytest.approx(0.2, abs=0.02)
    weights = cells.read(values)[stays]
    assert weights.abs().max() < 0.05 + 1e-9
    assert float(weights.std()) == pytest.approx(0.05 / 3**0.5, rel=0.1)


def test_values_leak_to_the_reference_and_diffuse():
    device = replace(KINDS["soft_reference"][0], lifetime=50.0)
    cells = device.cells((10,), dtype=torch.float64)
    values = cells.programmed(torch.full((10,), 0.3, dtype=torch.float64))
    for _ in range(50):
        values = cells.rested(values)
    torch.testing.assert_close(cells.read(values), torch.full((10,), 0.3 * (1 - 1 / 50) ** 50, dtype=torch.float64))
    cells = Constant(diffusion=0.01, **EXACT).cells((4000,), dtype=torch.float64)
    values, generator = torch.zeros(4000, dtype=torch.float64), torch.Generator().manual_seed(0)
    for _ in range(25):
        values = cells.rested(values, generator)
    assert float(values.std()) == pytest.approx(0.05, rel=0.05)


def test_a_pair_holds_both_signs_and_is_refreshed():
    device = replace(devices.PCM, **EXACT)
    cells = Pair(device=device).cells((3,), dtype=torch.float64)
    weights = torch.tensor([-1.5, 0.0, 0.7], dtype=torch.float64)
    torch.testing.assert_close(cells.read(cells.programmed(weights)), weights)
    full = torch.tensor([[1.6, 1.4, 1.6], [0.6, 0.6, 0.3]], dtype=torch.float64)
    once = cells.pulsed(full, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert float(once[:, 0].min()) == 0, "the fuller above 3/4, the other above 1/4"
    assert torch.equal(once[:, 1:], full[:, 1:])
    assert float(cells.read(once)[0]) > 1.0


def test_granularity_is_the_change_of_a_weight_of_zero():
    for device, _ in KINDS.values():
        cells = device.cells((1,), dtype=torch.float64)
        values, one = cells.programmed(torch.zeros(1, dtype=torch.float64)), torch.ones(1, dtype=torch.float64)
        sides = [abs(float(cells.read(cells.pulsed(values, each)))) for each in (one, -one)]
        if device.low < 0:
            assert device.granularity == pytest.approx(sum(sides) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Constant(low=0.1, high=1.0), "must hold 0"),
        (lambda: Constant(step=0.0), "step"),
        (lambda: Linear(up_slope=1.5), "up_slope"),
        (lambda: SoftBounds(low=0.0), "both sides"),
        (lambda: Table(up=(1.0,), down=(1.0,)), "two or more"),
        (lambda: Table(up=(1.0, -0.1), down=(1.0, 1.0)), "not negative"),
        (lambda: Constant(lifetime=0.5), "below one update"),
        (lambda: devices.find_device("ecrm"), "did you mean 'ecram'"),
        (lambda: devices.find_device("nowhere.csv"), "nowhere.csv"),
    ],
)
def test_what_is_no_device_is_refused(make, words):
    with pytest.raises(ep.InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


# -- measured devices --


def write(path, up, down, title="pulse,up,down\n"):
    path.write_text(title + "".join(f"{i},{a},{b}\n" for i, (a, b) in enumerate(zip(up, down, strict=True))))
    return path


def test_a_measured_device_is_found_again(tmp_path):
    """Curves of soft bounds, in microsiemens: the table's trajectory is theirs."""
    device = SoftBounds(step=0.05, low=-1.0, high=1.0, **EXACT)
    cells, one = device.cells((1,), dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    curves = []
    for sign in (1, -1):
        values = [cells.programmed(-0.9 * sign * one)]
        values += [cells.pulsed(values[0], sign * n * one) for n in range(1, 50)]
        curves.append([20 + 15 * float(each) for each in values])
    table = Table.from_csv(write(tmp_path / "soft.csv", *curves))
    assert table.cycle_noise < 0.15
    low, high = min(*curves[0], *curves[1]), max(*curves[0], *curves[1])
    cells = replace(table, cycle_noise=0.0).cells((1,), dtype=torch.float64)
    for curve, sign in zip(curves, (1, -1), strict=True):
        weights = [2 * (each - low) / (high - low) - 1 for each in curve]
        start = cells.programmed(weights[0] * one)
        found = [float(cells.pulsed(start, sign * n * one)) for n in range(50)]
        assert max(abs(a - b) for a, b in zip(found, weights, strict=True)) < 0.05


def test_the_scatter_of_a_measured_device_is_its_noise(tmp_path):
    generator = torch.Generator().manual_seed(0)
    pulses = 0.5 * (1 + 0.3 * torch.randn(2, 400, generator=generator))
    up = pulses[0].cumsum(0)
    down = up[-1] - pulses[1].cumsum(0)
    table = Table.from_csv(write(tmp_path / "noisy.csv", up.tolist(), down.tolist(), title=""))
    assert table.cycle_noise == pytest.approx(0.3, rel=0.1)
    assert table.step == pytest.approx(2 / 400, rel=0.1)


WHOLE = "".join(f"{i},{i},{-i}\n" for i in range(20))
"""Twenty pulses up and down."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pulse,up,down\n1,2\n", "line 2: '1,2'"),
        ("1,2,3\n2,3,x\n", "line 2"),
        ("1,2,3\n2,3,nan\n", "not finite"),
        ("1,2,3\n2,3,2\n", "2 pulses: give 9 or more"),
        ("".join(f"{i},{i},{i}\n" for i in range(20)), "fall in the third"),
        ("".join(f"{i},1,1\n" for i in range(20)), "must rise"),
        ("pulse,up,down\n\n1,2,3\n2,3,x\n", "line 4"),
        ("0,1O,3\n" + WHOLE, "line 1: '0,1O,3'"),
        (WHOLE.replace(",", ";"), "commas between them and decimal points"),
        ("".join(f"{i},{i},{-i}\n" for i in range(0, 200, 10)), "pulse 10 comes after pulse 0"),
        ("".join(f"nan,{i},{-i}\n" for i in range(20)), "pulse nan comes after"),
        (WHOLE + WHOLE, "line 21: pulse 0 comes after pulse 19"),
    ],
)
def test_a_file_that_holds_no_device_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(ep.InputError, match=words) as caught:
        Table.from_csv(path)
    assert "\n" not in str(caught.value)


def test_a_table_of_one_node_is_refused(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(WHOLE)
    with pytest.raises(ep.InputError, match="nodes 1: a table has two or more"):
        Table.from_csv(path, nodes=1)
