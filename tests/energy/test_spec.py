"""A network written down as JSON and built anew is the same network; a stranger's JSON runs no code."""

import inspect
import json
import sys
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st
from networks import NETWORKS, Quartic, predictive
from torch import nn
from torch.nn.utils import parametrizations

import eqprop as ep

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
UNITS = [unit for unit in vars(ep.energy).values() if isinstance(unit, ep.Unit)]
UNITS += [ep.energy.Clip(0.7, -1.0, float("inf")), ep.energy.Sigmoid(3.0, 0.1), ep.energy.SmoothClip(3.0)]
POOLS = [None, ep.MaxPool(2), ep.MaxPool(3, 2), ep.AveragePool(2, 1), ep.energy.SoftPool(2)]
LOSSES = [None, ep.SquaredError, ep.CrossEntropy, partial(ep.ReadoutCrossEntropy, classes=3)]
units = st.sampled_from(UNITS)
pairs = st.sampled_from([2, 3, (3, 2)])
convolutions = st.builds(
    ep.ConvLayer, st.sampled_from([2, 4]), pairs, padding=st.sampled_from([1, (1, 2)]),
    stride=st.sampled_from([1, (2, 1)]),
    dilation=st.sampled_from([1, (1, 2)]), groups=st.sampled_from([1, 2]), pool=st.sampled_from(POOLS),
    activation=units, dropout=st.sampled_from([0.0, 0.25]),
)  # fmt: skip
dense = st.builds(ep.DenseLayer, st.integers(1, 5), units, st.sampled_from([0.0, 0.5]))


def read(network, allow=()):
    """Through JSON, with the weights."""
    twin = ep.Network.from_spec(json.loads(json.dumps(network.spec(), allow_nan=False)), allow)
    twin.load_state_dict(network.state_dict())
    return twin


def prediction(network):
    torch.manual_seed(5)
    x = {name: torch.rand(4, *network.nodes[name].shape) for name in network.clamped}
    estimator = ep.Equilibrium(network, ep.ImplicitDifferentiation(ep.FixedSweeps(3)), on_unsettled="ignore")
    with torch.no_grad():
        return estimator(x or torch.rand(4, 1)), estimator.settle(x or torch.rand(4, 1)).state


def check_same(network, twin):
    assert repr(twin) == repr(network)
    assert twin.spec() == network.spec()
    assert twin.nodes == network.nodes
    assert twin.state_dict().keys() == network.state_dict().keys()
    (output, state), (again, states) = prediction(network), prediction(twin)
    assert torch.equal(output, again) or bool(output.isnan().any())
    assert all(torch.equal(state[name], states[name]) or bool(state[name].isnan().any()) for name in state)


@QUICK
@given(
    st.lists(convolutions, max_size=2), st.lists(dense, min_size=1, max_size=2),
    st.sampled_from(LOSSES), st.booleans(), st.sampled_from([1.0, 0.3]),
)  # fmt: skip
def test_every_chain_comes_back(images, flat, loss, separate, gain):
    torch.manual_seed(0)
    network = ep.chain((2, 16, 16), [*images, *flat], loss, separate, gain)
    check_same(network, read(network))


def circuit():
    nodes = {"x": ep.Node((3,)), "wire": ep.Node((3,), ep.energy.Wire(high=0.5)), "y": ep.Node((3,), ep.sigmoid)}
    couplings = [ep.Synapse("x", "y", ep.Dense((3,), (3,))), Spring("x", "wire"), Spring("wire", "y")]
    return ep.Network(nodes, couplings, ep.BinaryCrossEntropy("y", (3,)), clamped=["x"], substrate=Coarse(0.25))


class Spring(ep.Coupling):
    quadratic = True

    def __init__(self, one, other):
        super().__init__()
        self.one, self.other, self.nodes = one, other, (one, other)

    def energy(self, *states):
        return 0.5 * (states[0] - states[1]).square().sum(1)

    def stiffness(self, node, *states):
        return torch.ones(())


@dataclass
class Coarse(ep.energy.Substrate):
    grid: float

    def measured(self, state, reading):
        return {name: (value / self.grid).round() * self.grid for name, value in state.items()}


def residual():
    image = ep.Node((2, 4, 4), ep.tanh, 0.5)
    nodes = {"u": (3, 4, 4), "v": (5,), "a": image, "b": image, "c": image, "y": ep.Node((3,), ep.identity)}
    layer = ep.ConvLayer(2, pool=None)
    edges = [
        ("u", "a", layer),
        ("v", "a", ep.Dense),
        ("a", "b", layer),
        ("b", "c", layer),
        ("a", "c"),
        ("a", "c", layer),
    ]
    loss = ep.energy.WeightedSum([ep.SquaredError("y", (3,)), ep.ReadoutCrossEntropy("c", (2, 4, 4), 3)], [1.0, -0.5])
    return ep.graph(nodes, [*edges, ("c", "y", ep.Dense)], loss)


def held():
    """Two free nodes, one of them held at data, and the first the output."""
    nodes = {"a": ep.Node((3,), ep.tanh), "b": ep.Node((3,), ep.tanh), "c": ep.Node((3,), ep.tanh)}
    couplings = {
        "one": ep.Synapse("a", "b", ep.Dense((3,), (3,))),
        "two": ep.Synapse("b", "c", ep.energy.Skip((3,)), -0.5),
    }
    return ep.Network(nodes, couplings, output="a", clamped=["c"])


def free():
    return ep.Network({"a": ep.Node((2,), ep.tanh)}, [ep.Bias("a", (2,), 4)], ep.energy.losses.LinearForce("a"), "a")


def feedback():
    network = NETWORKS["separate"]()
    network.couplings["layer1_layer2"].feedback.requires_grad_(False)
    return network


OTHERS = {
    **{name: make for name, make in NETWORKS.items() if name != "custom"},
    **{each.__name__: each for each in (circuit, residual, held, feedback)},
    "predictive": lambda: predictive((6, 5, 4)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_network_comes_back(name):
    torch.manual_seed(0)
    network = OTHERS[name]()
    twin = read(network, [Spring, Coarse])
    check_same(network, twin)
    assert {n: p.requires_grad for n, p in twin.named_parameters()} == {
        n: p.requires_grad for n, p in network.named_parameters()
    }


def test_a_network_without_data_comes_back():
    network, twin = free(), read(free())
    assert repr(twin) == repr(network)
    assert twin.clamped == ()


def public(base):
    return [
        c for c in vars(ep.energy).values() if isinstance(c, type) and issubclass(c, base) and not inspect.isabstract(c)
    ]


def test_every_part_of_the_package_was_among_them():
    """Units, pools, maps, couplings and losses, by the classes that the specs above name."""
    text = "".join(json.dumps(make().spec()) for make in (*OTHERS.values(), free))
    text += json.dumps(ep.chain((4,), [ep.DenseLayer(2, unit) for unit in UNITS]).spec())
    for base in (ep.Unit, ep.energy.Pool, ep.energy.Map, ep.Coupling, ep.Loss):
        for kind in public(base):
            if kind not in (base, ep.energy.ModuleMap, ep.CrossEntropy):
                assert f":{kind.__qualname__}" in text, kind


def test_the_spec_is_plain():
    spec = ep.chain((4,), [ep.DenseLayer(3)], ep.SquaredError).spec()
    assert spec["class"] == "eqprop.energy:Network"
    assert list(spec["arguments"]) == ["nodes", "couplings", "loss", "output", "clamped", "substrate"]
    node = spec["arguments"]["nodes"]["mapping"]["layer1"]
    assert node["class"] == "eqprop.energy:Node"
    assert node["arguments"] == {
        "shape": [3],
        "unit": {"class": "eqprop.energy:Clip", "arguments": {"slope": 0.5, "low": 0.0, "high": 1.0}},
        "dropout": 0.0,
    }


class Forgetful(ep.Loss):
    def __init__(self, node, margin):
        super().__init__()
        self.nodes, self.node = (node,), node

    def forward(self, target, *states):
        return states[0].sum(1)


def test_what_does_not_write_itself_down_is_named():
    def built(loss=None, map=None):
        nodes = {"x": ep.Node((4,)), "y": ep.Node((3,), ep.tanh)}
        return ep.Network(nodes, [ep.Synapse("x", "y", map or ep.Dense((4,), (3,)))], loss)

    with pytest.raises(ep.InputError, match=r"Forgetful.*'margin'"):
        built(Forgetful("y", 1.0)).spec()
    with pytest.raises(ep.InputError, match=r"'bias' of torch.*Linear is a .*Parameter"):
        built(map=nn.Linear(4, 3)).spec()
    with pytest.raises(ep.InputError, match=r"Sequential.*'args'"):
        built(map=nn.Sequential(nn.Linear(4, 3))).spec()
    with pytest.raises(ep.InputError, match="computed"):
        built(map=parametrizations.weight_norm(ep.Dense((4,), (3,)))).spec()


def tied():
    torch.manual_seed(0)
    shared = ep.Dense((4,), (4,))
    nodes = {"x": (4,), "a": ep.Node((4,), ep.tanh), "b": ep.Node((4,), ep.tanh), "y": ep.Node((2,), ep.identity)}
    return ep.graph(nodes, [("x", "a", shared), ("a", "b", shared), ("b", "y", ep.Dense)], ep.SquaredError("y", (2,)))


def test_shared_weights_stay_shared():
    network, twin = tied(), read(tied())
    check_same(network, twin)
    assert len(list(twin.parameters())) == len(list(network.parameters()))
    spec = network.spec()
    ((name, other),) = spec["shared"].items()
    assert twin.get_parameter(name) is twin.get_parameter(other)
    for shared in ({name: 3}, {name: "nobody"}, {"nobody": name}, {name: name + "."}, [name], None):
        with pytest.raises(ep.InputError, match="shared"):
            ep.Network.from_spec({**spec, "shared": shared})
    with pytest.raises(ep.InputError, match="shape"):
        ep.Network.from_spec({**spec, "shared": {name: "couplings.b_y.map.weight"}})


def test_a_users_class_needs_permission():
    network = NETWORKS["skip"]()
    network = ep.Network(network.nodes, [*network.terms.values(), Quartic()], network.loss)
    with pytest.raises(ep.InputError, match=r"Quartic.*allow"):
        read(network)
    check_same(network, read(network, [Quartic]))


def poisoned(name, arguments=None):
    """A spec with another class in the place of the output's unit."""
    spec = ep.chain((4,), [ep.DenseLayer(3)]).spec()
    unit = {"class": name, "arguments": arguments or {}}
    spec["arguments"]["nodes"]["mapping"]["layer1"]["arguments"]["unit"] = unit
    return spec


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "builtins:dict",
        "subprocess:Popen",
        "pathlib:Path",
        "antigravity:Unit",
        "torch.nn.modules.linear:Linear",
        "eqprop.cli:main",
        "eqprop.training.report:Report",
        "eqprop.training.loop:Experiment",
        "eqprop.energy.units:torch",
        "eqprop.energy.units:torch.nn.Linear",
        "eqprop.energy.units:Unit.__init__",
        "eqprop.energy.units:Unit.__class__",
        "eqprop.energy.units:tanh",
        "eqprop.energy.units:math",
        "eqprop.energy.nodes:Tanh",
        "eqprop:Unit",
        "eqprop.nowhere:Unit",
        "eqpropagation:Unit",
        "eqprop.energy.units",
        "",
        ":",
        None,
        3,
        ["eqprop.energy.units:Tanh"],
        {"class": "eqprop.energy.units:Tanh"},
    ],
    ids=str,
)
def test_a_stranger_names_no_other_class(name):
    before = set(sys.modules)
    with pytest.raises(ep.InputError, match="The spec"):
        ep.Network.from_spec(poisoned(name, {"command": "true"} if name == "os:system" else None))
    assert set(sys.modules) == before, "a module was imported"


def deep(levels):
    found = 3
    for _ in range(levels):
        found = [found]
    return found


SOUND = ep.chain((4,), [ep.DenseLayer(3)]).spec()


@pytest.mark.parametrize(
    "spec",
    [
        None,
        3,
        [],
        {},
        {"class": "eqprop.energy.network:Network"},
        {"class": "eqprop.energy.network:Network", "arguments": {}},
        {"class": "eqprop.energy.network:Network", "arguments": [], "frozen": []},
        {**SOUND["arguments"]["nodes"]["mapping"]["layer1"], "frozen": []},
        {**SOUND, "more": 1},
        {**SOUND, "frozen": "abc"},
        {**SOUND, "frozen": None},
        {**SOUND, "arguments": {**SOUND["arguments"], "more": 1}},
        {**SOUND, "arguments": {**SOUND["arguments"], "nodes": 3}},
        {**SOUND, "arguments": {**SOUND["arguments"], "couplings": "abc"}},
        {**SOUND, "arguments": {**SOUND["arguments"], "loss": deep(100_000)}},
        {**SOUND, "arguments": {**SOUND["arguments"], "substrate": {"float": "abc"}}},
        {**SOUND, "arguments": {**SOUND["arguments"], "output": {"mapping": [1]}}},
        poisoned("eqprop.energy.units:Clip", {"slope": "1"}),
        poisoned("eqprop.energy.units:Clip", {"slope": -1.0}),
        poisoned("eqprop.energy.maps:Map"),
        poisoned("eqprop.energy.maps:Dense", {"in_shape": [10**9], "out_shape": [10**9]}),
        poisoned("eqprop.energy.nodes:Node", {"shape": [3]}),
    ],
    ids=range(22),
)
def test_a_malformed_spec_is_refused(spec):
    with pytest.raises(ep.InputError):
        ep.Network.from_spec(spec)


def test_units_keep_infinite_bounds():
    network = ep.chain((4,), [ep.DenseLayer(3, replace(ep.hard_sigmoid, low=-float("inf")))])
    assert read(network).nodes["layer1"].unit.low == -float("inf")
