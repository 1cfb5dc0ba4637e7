"""Crossbars with wires that resist, against Kirchhoff's equations for all nodes at once."""

import pytest
import torch

import eqprop as ep
from eqprop import substrates as s


def solved(cells, resistance, rows, columns):
    """Voltages (row wires, column wires), and currents (into rows, out of columns), of drives at the ends of both."""
    n, m = cells.shape
    wire, size = 1 / resistance, 2 * n * m
    matrix, right = torch.zeros(size, size, dtype=cells.dtype), torch.zeros(size, dtype=cells.dtype)

    def row(i, j):
        return i * m + j

    def column(i, j):
        return n * m + i * m + j

    def join(a, b, conductance):
        matrix[a, a] += conductance
        matrix[b, b] += conductance
        matrix[a, b] -= conductance
        matrix[b, a] -= conductance

    for i in range(n):
        for j in range(m):
            join(row(i, j), column(i, j), cells[i, j])
            if j:
                join(row(i, j - 1), row(i, j), wire)
            if i:
                join(column(i - 1, j), column(i, j), wire)
    ends = [(row(i, 0), rows[i]) for i in range(n)] + [(column(n - 1, j), columns[j]) for j in range(m)]
    for end, drive in ends:
        matrix[end, end] += wire
        right[end] += wire * drive
    found = torch.linalg.solve(matrix, right)
    currents = torch.stack([wire * (drive - found[end]) for end, drive in ends])
    return found[: n * m].view(n, m) - found[n * m :].view(n, m), currents[:n], -currents[n:]


def cells(n, m):
    torch.manual_seed(n * m)
    return 0.1 + 0.9 * torch.rand(n, m, dtype=torch.float64)


SHAPES = [(1, 1), (1, 4), (4, 1), (5, 3), (3, 5), (8, 8)]


@pytest.mark.parametrize("resistance", [1e-5, 1e-2, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_multiplies_as_kirchhoffs_equations_say_and_backwards_by_the_transpose(shape, resistance):
    given = cells(*shape)
    found, (n, m) = s.crossbar(given, resistance), shape
    one, other = torch.eye(n, dtype=torch.float64), torch.eye(m, dtype=torch.float64)
    forward = torch.stack([solved(given, resistance, each, torch.zeros(m))[2] for each in one])
    backward = -torch.stack([solved(given, resistance, torch.zeros(n), each)[1] for each in other], 1)
    rounding = 1e-13 if resistance > 1e-3 else 1e-10  # the conditioning of the oracle's matrix is 1 / resistance
    assert float((found - forward).abs().max()) < rounding
    assert float((found - backward).abs().max()) < rounding


@pytest.mark.parametrize("resistance", [1e-5, 1e-2, 1.0])
def test_from_the_other_side_it_is_the_transpose_to_rounding(resistance):
    """A square one, whose rows and columns are eliminated apart from each other; others are turned first."""
    given = cells(9, 9)
    one, other = s.crossbar(given, resistance), s.crossbar(given.T.flip(0, 1), resistance).flip(0, 1)
    assert not torch.equal(one, other.T)
    assert float((one - other.T).abs().max()) < 1e-13


@pytest.mark.parametrize(("size", "low", "high"), [(32, 0.004, 0.0065), (64, 0.015, 0.03)])
def test_the_first_order_law_of_what_is_lost(size, low, high):
    """A cell loses resistance times the current of its row beyond it, summed over segments; its column likewise."""
    given, resistance = cells(size, size), 1e-5
    rows = given.flip(1).cumsum(1).flip(1).cumsum(1)
    columns = given.cumsum(0).flip(0).cumsum(0).flip(0)
    law = given * (1 - resistance * (rows + columns))
    loss, lost = (1 - each.sum(0) / given.sum(0) for each in (s.crossbar(given, resistance), law))
    assert low < float(loss.max()) < high
    torch.testing.assert_close(loss, lost, rtol=0.05, atol=0)


def test_the_derivative_by_a_cell_is_the_product_of_its_voltages():
    """Of u M v by g: the cell's voltage under v times that under u; so half its square is that of the energy."""
    given = cells(12, 8).requires_grad_()
    v, u = torch.randn(12, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    (found,) = torch.autograd.grad(v @ s.crossbar(given, 1e-2) @ u, given)
    zeros = torch.zeros(12), torch.zeros(8)
    right = -solved(given.detach(), 1e-2, v, zeros[1])[0] * solved(given.detach(), 1e-2, zeros[0], u)[0]
    assert float((found - right).norm() / right.norm()) < 1e-9
    ends = v[:, None] * u[None]
    assert float((ends - right).norm() / right.norm()) > 0.1


def test_without_resistance_it_is_the_matrix_of_the_cells():
    given = cells(7, 4)
    torch.testing.assert_close(s.crossbar(given, 1e-9), given, rtol=1e-6, atol=0)


def test_weights_are_read_as_pairs_of_cells_also_of_kernels():
    for map in (ep.Dense((6,), (4,)), ep.Convolution((2, 5, 5), 3)):
        coupling = ep.Synapse("a", "b", map.double())
        seen = s.Wires(1e-2).mounted("a_b", coupling, 0).map.weight
        w = map.weight.detach()
        given = w.reshape(len(w), -1).T / w.abs().max()
        right = s.crossbar(given.clamp(0), 1e-2) - s.crossbar((-given).clamp(0), 1e-2)
        torch.testing.assert_close(seen, (right * w.abs().max()).T.reshape(w.shape))
        assert float((seen.detach() - w).abs().max() / w.abs().max()) > 1e-2


def test_wires_that_let_nothing_through_are_refused():
    with pytest.raises(ep.InputError, match=r"the wires let nothing through.*take less"):
        s.Wires(1e30).mounted("a_b", ep.Synapse("a", "b", ep.Dense((3,), (2,))), 0)
