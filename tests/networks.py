"""Small networks that the tests share, their data and their gradients."""

import itertools

import torch

import eqprop as ep

SETTLE = ep.FixedSweeps(60)


def shrunk(network, factor=0.6):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(factor)
    return network


def readout(node, shape):
    return ep.ReadoutCrossEntropy(node, shape, 4)


def dense(separate=False, loss=readout):
    return shrunk(ep.chain((6,), [ep.DenseLayer(n, ep.tanh) for n in (8, 7, 4)], loss, separate))


def conv(pool, separate=False):
    layers = [
        ep.ConvLayer(3, pool=pool, activation=ep.tanh),
        ep.ConvLayer(4, pool=None, activation=ep.energy.half_sigmoid),
    ]
    return shrunk(ep.chain((2, 6, 6), [*layers, ep.DenseLayer(5, ep.tanh)], readout, separate))


def skip():
    """A triangle of hidden nodes, a loss on two of them, and an edge that jumps over a node."""
    nodes = {"x": ep.Node((6,)), **{n: ep.Node((5,), ep.tanh) for n in ("a", "b", "c")}}
    edges = [("x", "a"), ("a", "b"), ("b", "c"), ("a", "c"), ("x", "c")]
    couplings = [ep.Synapse(p, q, ep.Dense(nodes[p].shape, nodes[q].shape)) for p, q in edges]
    couplings += [ep.Bias(n, (5,)) for n in ("a", "b", "c")]
    loss = ep.energy.WeightedSum([ep.SquaredError("c", (5,)), ep.CrossEntropy("b", (5,))], [1.0, 0.3])
    return shrunk(ep.Network(nodes, couplings, loss), 0.5)


class Quartic(ep.Coupling):
    """A user's energy of three nodes, with nothing but the energy."""

    def __init__(self):
        super().__init__()
        self.nodes = ("a", "b", "c")
        self.strength = torch.nn.Parameter(torch.tensor(0.3))

    def energy(self, *states):
        a, b, c = states
        return self.strength * (a.square() * b * c).sum(1)


def custom():
    nodes = {"x": ep.Node((6,)), **{n: ep.Node((5,), ep.tanh) for n in ("a", "b", "c")}}
    chain = [ep.Synapse(p, q, torch.nn.Linear(nodes[p].units, 5)) for p, q in ("xa", "ab", "bc")]
    return shrunk(ep.Network(nodes, [*chain, Quartic()], ep.SquaredError("c", (5,))))


NETWORKS = {
    "dense": dense,
    "dense mse": lambda: dense(loss=ep.SquaredError),
    "average": lambda: conv(ep.AveragePool(2)),
    "soft": lambda: conv(ep.energy.SoftPool(2)),
    "max": lambda: conv(ep.MaxPool(2)),
    "strided max": lambda: conv(ep.MaxPool(3, 2)),
    "separate": lambda: dense(separate=True),
    "separate conv": lambda: conv(ep.AveragePool(2), separate=True),
    "skip": skip,
    "custom": custom,
}


def data(network, batch=5):
    shape = network.nodes[network.input].shape
    return torch.randn(batch, *shape), torch.arange(batch) % 4


def gradients(network, estimator, x=None, y=None, weight=None):
    model = ep.Equilibrium(network, estimator)
    x0, y0 = data(network)
    torch.manual_seed(1)
    x, y = (x0, y0) if x is None else (x, y)
    found = torch.autograd.grad(model.loss(x, y, weight), list(network.parameters()))
    return torch.cat([g.flatten() for g in found])


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def nudging(stencil, rule=ep.contrastive, **more):
    return ep.EquilibriumPropagation(stencil, SETTLE, SETTLE, rule, **more)


SWEEPS = [
    *(ep.synchronous, ep.alternating, ep.settling.forward_order, ep.settling.backward_order),
    *(ep.settling.Leaky(0.5), ep.settling.Leaky(0.2, ep.alternating)),
]


def chain(depth, activation=ep.tanh, loss=None):
    torch.manual_seed(0)
    return ep.chain((3,), [ep.DenseLayer(4 + n, activation) for n in range(depth)], loss).double()


def triangle(activation=ep.tanh, scale=1.0, seed=0):
    """Three hidden nodes, each coupled to both others."""
    torch.manual_seed(seed)
    nodes = {"x": ep.Node((3,)), **{n: ep.Node((4,), activation) for n in "abc"}}
    edges = ["xa", "ab", "bc", "ac"]
    network = ep.Network(nodes, [ep.Synapse(p, q, ep.Dense(nodes[p].shape, (4,))) for p, q in edges]).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    return network


def start(network, batch=3):
    torch.manual_seed(1)
    scene = network.landscape(torch.randn(batch, 3, dtype=torch.float64))
    return scene, {n: torch.rand(batch, *node.shape, dtype=torch.float64) for n, node in network.free.items()}


def predictive(sizes, gain=1.5, loss=ep.CrossEntropy, activation=ep.energy.relu):
    """A predictive-coding chain of layers of these sizes, the first of the input; the last is linear."""
    names = ["input", *(f"layer{k}" for k in range(1, len(sizes)))]
    nodes = {name: ep.Node((size,), ep.energy.Wire()) for name, size in zip(names, sizes, strict=True)}
    nodes["input"] = ep.Node(sizes[:1])
    couplings = []
    for pre, post in itertools.pairwise(names):
        layer = ep.energy.Activated(
            ep.Dense(nodes[pre].shape, nodes[post].shape), ep.identity if post == names[-1] else activation
        )
        with torch.no_grad():
            layer.map.weight.normal_(0, gain / nodes[pre].units ** 0.5)
        couplings.append(ep.energy.Prediction(pre, post, layer))
    return ep.Network(nodes, couplings, loss(names[-1], sizes[-1:]))
