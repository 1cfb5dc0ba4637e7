"""Every fault: ideal to the bit at strength 0, the same draws for the same names, written down, refused."""

import copy
import inspect
import json
import sys
from pathlib import Path

import pytest
import torch
from faults import FAULTS, IDEAL

import eqprop as ep
from eqprop import substrates as s, testing
from eqprop.energy import Nudge, spec
from eqprop.learning import forms

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from estimators import CASES, NETWORKS, Setting, data, gradients, named, relative

STATELESS = {"UnitNoise", "LoopConverter"}
"""Their units minimise no potential, which the shipped check asks of one whose response rises."""
ALL = s.Together(
    s.WeightSpread(0.1), s.UnitSpread(0.1, 0.1), s.NudgeGain(0.2), s.ReadNoise(1e-5), s.ReadConverter(1e-4)
)


def settings(names):
    return [Setting(case, case.networks[0]) for case in CASES if case.name in names]


def learnt(setting, substrate, seed=3):
    model = setting.model()
    model.network = model.network.on(substrate)
    torch.manual_seed(seed)
    return gradients(model.loss(*setting.data()), model)


def test_every_fault_is_here():
    public = {name for name, each in vars(s).items() if inspect.isclass(each)} - {"Fault", "Together"}
    assert public == {type(each).__name__ for each in FAULTS.values()}


@pytest.mark.parametrize("name", IDEAL)
def test_a_strength_of_0_is_the_ideal_substrate_to_the_bit(name):
    substrate = IDEAL[name]
    net = NETWORKS["conv"]().double()
    state = {n: torch.randn(2, *node.shape, dtype=torch.float64) for n, node in net.free.items()}
    nudge = Nudge(ep.SquaredError("a", (1,)), torch.zeros(2, 1), torch.ones(2))
    assert not substrate.per_phase
    assert all(substrate.mounted(n, c, r) is c for n, c in net.terms.items() for r in (0, 1, -1))
    assert all(substrate.unit(n, node) is node for n, node in net.free.items())
    assert substrate.injected(nudge) is nudge
    assert all(substrate.aimed(n, value) is value for n, value in state.items())
    assert all(substrate.measured(state, r) is state for r in (0, 1, 2, -1))


@pytest.mark.parametrize("case", CASES, ids=named)
def test_on_gates_that_change_nothing_every_estimator_gives_the_same_bits(case):
    for kind in case.networks:
        setting = Setting(case, kind)
        assert torch.equal(learnt(setting, ep.energy.Substrate()), learnt(setting, IDEAL["Together"]))


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_does_something(name):
    setting = settings({"ep-in-turn"})[0]
    found, ideal = learnt(setting, FAULTS[name]), learnt(setting, ep.energy.Substrate())
    assert 1e-5 < relative(found, ideal) < 1


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in STATELESS])
def test_the_shipped_check_takes_every_fault(name):
    testing.check_substrate(FAULTS[name].once())


def test_the_shipped_check_takes_several_faults():
    testing.check_substrate(s.Together(*(FAULTS[name] for name in FAULTS if name not in STATELESS)).once())


@pytest.mark.parametrize("name", FAULTS)
def test_it_writes_itself_down(name):
    several = s.Together(FAULTS[name], s.Together(s.Droop(0.1), s.ReadNoise(0.2, seed=3)))
    written = json.loads(json.dumps(spec.to_spec(several, "it")))
    assert spec.from_spec(written, ()) == several
    network = NETWORKS["dense"]().on(several)
    assert ep.Network.from_spec(json.loads(json.dumps(network.spec()))).substrate == several


def test_together_takes_substrates_only():
    with pytest.raises(ep.InputError, match="no substrate"):
        s.Together(s.Droop(0.1), 3)
    with pytest.raises(ep.InputError):
        spec.from_spec({"class": "eqprop.substrates:Together", "arguments": {"parts": [1]}}, ())


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_estimator_runs_on_all_kinds_at_once_or_refuses_as_today(case):
    for kind in case.networks:
        setting = Setting(case, kind)
        found = learnt(setting, ALL)
        assert found.isfinite().all()
        assert relative(found, learnt(setting, ep.energy.Substrate())) > 1e-6


PENALTIES = {
    "JacobianPenalty": lambda of: ep.learning.JacobianPenalty(of, ep.learning.jacobian_norm, 0.1),
    "RayleighPenalty": lambda of: ep.learning.RayleighPenalty(of, 0.1),
}


@pytest.mark.parametrize("penalty", PENALTIES)
def test_so_does_every_penalty(penalty):
    setting = settings({"ep-in-turn"})[0]
    found = []
    for substrate in (ALL, ep.energy.Substrate()):
        model = setting.model()
        model.network = model.network.on(substrate)
        model.estimator = PENALTIES[penalty](model.estimator)
        found.append(gradients(model.loss(*setting.data()), model))
    assert found[0].isfinite().all()
    assert relative(*found) > 1e-6


def test_no_estimator_is_left_out():
    offered = {
        name
        for name, each in vars(ep.learning).items()
        if inspect.isclass(each) and issubclass(each, ep.Estimator) and not inspect.isabstract(each)
    }
    assert offered == {type(case.make()).__name__ for case in CASES} | set(PENALTIES)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_it_refuses_where_it_refuses_today(case):
    """A network of separate feedback, which several estimators do not take."""

    def outcome(substrate):
        try:
            learnt(Setting(case, "separate"), substrate)
        except ep.InputError as error:
            return str(error)
        return "runs"

    assert outcome(ALL) == outcome(ep.energy.Substrate())


@pytest.mark.parametrize(
    "name", ["WeightSpread", "StuckWeights", "Aged", "FeedbackSpread", "MessageGains", "UnitSpread"]
)
def test_fixed_draws_depend_on_seed_and_names_alone(name):
    """Not on the batch, the order of construction, what was drawn before, or (to rounding) the precision."""
    network, fault = NETWORKS["dense"](), FAULTS[name]
    other = copy.copy(fault)
    object.__setattr__(other, "seed", 1)
    x, _ = data(network, torch.float64, 6)

    def states(net, substrate, some):
        model = ep.Equilibrium(net.on(substrate), ep.ImplicitDifferentiation(ep.FixedSweeps(60)))
        return model.settle(some).state

    first = states(network.double(), fault, x)
    torch.rand(7)
    s.together.fixed_normal.cache_clear()
    reordered = ep.Network(network.nodes, dict(reversed(network.terms.items())), network.loss)
    for again in (states(network, copy.deepcopy(fault), x), states(reordered, fault, x)):
        assert all(torch.allclose(first[n], again[n], rtol=0, atol=1e-14) for n in first)
    part = states(network, fault, x[2:4])
    assert all(torch.allclose(first[n][2:4], part[n], rtol=0, atol=1e-14) for n in first)
    changed = states(network, other, x)
    assert all(float((first[n] - changed[n]).abs().min()) > 0 for n in first)
    single = states(copy.deepcopy(network).float(), fault, x.float())
    assert all(torch.allclose(first[n], single[n].double(), rtol=0, atol=1e-5) for n in first)


@pytest.mark.parametrize("name", ["ReadSpread", "NudgeGain", "NudgeOffset"])
def test_so_do_those_of_reads_and_nudges(name):
    fault, other = FAULTS[name], copy.copy(FAULTS[name])
    object.__setattr__(other, "seed", 1)
    state = torch.rand(6, 5, dtype=torch.float64) + 0.5

    def passed(fault, some=state):
        return torch.stack([fault.measured({"a": some}, 3)["a"], fault.aimed("a", some)])

    first = passed(fault)
    torch.rand(7)
    s.together.fixed_normal.cache_clear()
    assert torch.equal(passed(copy.deepcopy(fault)), first)
    assert torch.equal(passed(fault, state[2:4]), first[:, 2:4])
    assert torch.allclose(passed(fault, state.float()).double(), first, rtol=0, atol=1e-6)
    moved = 0 if name == "ReadSpread" else 1
    assert float((passed(other) - first)[moved].abs().min()) > 0


@pytest.mark.parametrize("name", ["WeightNoise", "WriteNoise", "UnitNoise", "ReadNoise", "ReadConverter at random"])
def test_draws_that_change_come_from_a_generator_that_is_kept(name):
    setting, fault = settings({"ep-in-turn"})[0], copy.deepcopy(FAULTS[name])
    (generator,) = fault.generators()
    first, state = learnt(setting, fault), generator.get_state()
    second = learnt(setting, fault)
    assert relative(second, first) > 1e-6
    generator.set_state(state)
    torch.rand(3)
    assert torch.equal(learnt(setting, fault), second)


def test_noise_of_a_complex_reading_is_in_both_of_its_parts():
    state = {"a": torch.zeros(200, 50, dtype=torch.complex128)}
    read = torch.view_as_real(s.ReadNoise(0.2).measured(state, 1)["a"])
    torch.testing.assert_close(read.std((0, 1)), torch.tensor([0.2, 0.2], dtype=torch.float64), rtol=0.05, atol=0)
    assert abs(float((read[..., 0] * read[..., 1]).mean())) < 0.05 * 0.2**2


def test_a_model_offers_the_generators_of_its_substrate():
    noise = s.ReadNoise(0.1)
    model = ep.Equilibrium(NETWORKS["dense"]().on(s.Together(noise)), settings({"ep-in-turn"})[0].case.make())
    assert list(model.generators()) == [noise.generator]


def test_a_backward_that_is_repeated_gives_the_same_bits():
    setting = settings({"ep-in-turn"})[0]
    model = setting.model()
    model.network = model.network.on(s.Together(s.WeightNoise(0.01), s.ReadNoise(0.01)))
    loss = model.loss(*setting.data())
    parameters = list(model.parameters())
    first, second = (torch.autograd.grad(loss, parameters, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Chip(s.Together):
    def __init__(self):
        super().__init__(s.ReadNoise(0.01), s.WeightNoise(0.01))


def test_a_subclass_of_together_needs_no_arguments_of_its_own():
    setting = settings({"ep-in-turn"})[0]
    assert torch.equal(learnt(setting, Chip()), learnt(setting, s.Together(s.ReadNoise(0.01), s.WeightNoise(0.01))))


def test_two_circuits_refuse_what_a_network_has_once():
    for fault in (s.UnitSpread(0.1), s.NudgeGain(0.1)):
        with pytest.raises(ep.InputError, match="beside them by Together"):
            s.TwoCircuits(fault, s.Droop(0.1))


def test_levels_need_a_range():
    for arguments in ((float("inf"), 4), (1.0, 1), (-1.0, 4)):
        with pytest.raises(ep.InputError, match="levels"):
            s.WeightRange(*arguments)


def test_weights_are_read_at_the_nearest_level_within_the_range():
    coupling = ep.Synapse("a", "b", ep.Dense((3,), (2,)))
    seen = s.WeightRange(0.2, 5).mounted("a_b", coupling, 0).map.weight
    levels = torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2])
    nearest = (coupling.map.weight[..., None] - levels).abs().min(-1).indices
    torch.testing.assert_close(seen, levels[nearest])


def test_substrates_by_name():
    assert s.find_substrate("ideal").is_ideal
    assert s.find_substrate("pcm") == s.SUBSTRATES["pcm"]
    assert s.find_substrate("eqprop.substrates.Droop") == s.Droop()
    assert s.find_substrate("faults.ALL_OF_THEM") == s.Together(*FAULTS.values())
    for name, told in (
        ("noisy-read", "did you mean 'noisy-reads'"),
        ("nowhere.Chip", "cannot be imported"),
        ("eqprop.substrates.Chip", "cannot be imported"),
        ("faults.FAULTS", "no substrate"),
        ("pathlib.Path", "no substrate"),
        ("faults.TwoCircuits", "cannot be made without arguments"),
    ):
        with pytest.raises(ep.InputError, match=told):
            s.find_substrate(name)


@pytest.mark.parametrize("name", s.SUBSTRATES)
def test_every_named_substrate_learns(name):
    assert learnt(settings({"ep-in-turn"})[0], s.SUBSTRATES[name]).isfinite().all()


def test_forms_agree_where_only_weights_and_units_are_off():
    """The form of displacements keeps its precision: nothing is rounded to be measured."""
    machine = s.Together(s.WeightSpread(0.1), s.UnitSpread(0.1, 0.1), s.FeedbackSpread(0.1))
    net, (x, y) = NETWORKS["dense"]().double(), data(NETWORKS["dense"]())
    rest = ep.UntilConverged(1e-13, 5000)
    found = [
        gradients(
            ep.Equilibrium(net.on(machine), ep.EquilibriumPropagation(ep.symmetric(beta), rest, rest, form=f)).loss(
                x, y
            ),
            net,
        )
        for f, beta in ((forms.states, 1e-3), (forms.displacements, 1e-3), (forms.displacements, 1e-8))
    ]
    assert relative(found[1], found[0]) < 1e-8
    assert relative(found[2], found[1]) < 1e-5


@pytest.mark.parametrize("name", ["WeightSpread", "WeightRange", "StuckWeights", "Aged", "MessageGains", "Wires"])
def test_weights_of_the_way_down_have_the_faults_that_come_later(name):
    """Its own weights are the same whether the fault of each weight comes before or after."""
    fault, coupling = FAULTS[name], ep.Synapse("a", "b", ep.Dense((5,), (4,))).double()
    made = s.Together(s.FeedbackSpread(1e-12), fault).mounted("a_b", coupling, 0)
    other = s.Together(fault, s.FeedbackSpread(1e-12)).mounted("a_b", coupling, 0)
    pre, post = torch.zeros(5, 5, dtype=torch.float64), torch.eye(5, 4, dtype=torch.float64)
    down, likewise, plain = (each.drive("a", pre, post).detach() for each in (made, other, coupling))
    assert relative(down, likewise) < 1e-9
    assert relative(down, plain) > 1e-6


def test_messages_of_a_unit_have_one_gain_in_all_its_couplings():
    """Also where a dense layer reads channels: the slopes of the drives are symmetric but for a gain a unit."""
    layer = ep.ConvLayer(2, pool=None, activation=ep.tanh)
    network = ep.chain((1, 4, 4), [layer, layer, ep.DenseLayer(4, ep.tanh)]).double()
    fault = s.MessageGains(0.5)
    for name in ("layer1_layer2", "layer2_layer3"):
        coupling = fault.mounted(name, network.terms[name], 0)
        pre, post = (torch.randn(1, *network.nodes[n].shape, dtype=torch.float64) for n in coupling.nodes)
        up = torch.autograd.functional.jacobian(lambda v, c=coupling, u=post: c.drive(c.nodes[1], v, u), pre)
        down = torch.autograd.functional.jacobian(lambda u, c=coupling, v=pre: c.drive(c.nodes[0], v, u), post)
        gains = []
        for node in coupling.nodes:
            shape = network.nodes[node].shape
            drawn = (0.5 * fault.fixed(shape[:1], node)).exp()
            gains.append(drawn.view(-1, *[1] * (len(shape) - 1)).expand(shape).flatten())
        up, down = up.reshape(post.numel(), pre.numel()), down.reshape(pre.numel(), post.numel())
        torch.testing.assert_close(gains[1][:, None] * up, (gains[0][:, None] * down).T)


def test_a_convolution_of_groups_has_no_place_for_the_gains_of_messages():
    coupling = ep.Synapse("a", "b", ep.Convolution((4, 3, 3), 4, groups=2))
    with pytest.raises(ep.InputError, match=r"2 entries for 'a' of shape .4, 3, 3.*take a dense layer"):
        s.MessageGains(0.1).mounted("a_b", coupling, 0)


def test_a_weight_that_is_read_in_another_shape_is_refused():
    coupling = ep.Synapse("a", "b", ep.Dense((3,), (2,)))
    with pytest.raises(ep.InputError, match=r"map.weight of shape \(2, 3\) is read as \(\): keep its shape"):
        ep.energy.read_weights(coupling, lambda key, w: w.mean())


@pytest.mark.parametrize("fault", [s.UnitSpread(0.1, 0.1), s.UnitNoise(0.1), s.LoopConverter(0.1)])
def test_an_altered_unit_is_named_in_a_few_words(fault):
    """Messages name it, and not the numbers of all units."""
    told = str(fault.unit("a", ep.Node((500,), ep.tanh)).unit)
    assert "Tanh" in told
    assert len(told) < 60
