"""What the tests of the penalties share."""

import torch

import eqprop as ep

FREE = ep.FixedSweeps(10)  # at rest or not, a penalty is that of the state where the free phase ends


def nudging(stencil):
    return ep.EquilibriumPropagation(stencil, FREE, ep.FixedSweeps(30))


def jacobian(network, x, state):
    """d drives / d states of one example, by automatic differentiation; and the slopes of its units, all tanh."""
    sizes = [network.free[n].units for n in state]

    def drives(flat):
        parts = flat.split(sizes)
        at = {n: part.view(1, *network.free[n].shape) for n, part in zip(state, parts, strict=True)}
        return torch.cat([network.landscape(x).drive(at, n).flatten() for n in state])

    at = torch.cat([value.flatten() for value in state.values()])
    return torch.autograd.functional.jacobian(drives, at, create_graph=True), 1 - torch.tanh(drives(at)).square()


class Nothing(ep.Estimator):
    """A gradient of 0."""

    def __call__(self, landscape):
        with torch.no_grad():
            free = FREE(landscape, landscape.zeros())
        return free, lambda cost, parameters: ep.learning.GradientEstimate(
            tuple(torch.zeros_like(p) for p in parameters)
        )
