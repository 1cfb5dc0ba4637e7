"""The size of what a nudge does to each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from eqprop.diagnostics.comparison import titled
from eqprop.diagnostics.gradients import double, estimate, loss_of
from eqprop.energy import Network, Target
from eqprop.energy.gains import amplification_from
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.settling import FromFeedforward, UntilConverged, relative_norm

if TYPE_CHECKING:
    from rich.table import Table

FAR = UntilConverged(1e-9, 1000, norm=relative_norm)


@dataclass(frozen=True)
class LayerSize:
    """Root mean squares over the units of a node and a batch.

    Attributes:
        node: its name.
        activity: the free state.
        displacement: ds/dbeta, the state's change for each unit of the nudge.
        amplification: the inverse of the feedback gains between the node and the loss.
    """

    node: str
    activity: float
    displacement: float
    amplification: float

    @property
    def contrast(self) -> float:
        """The displacement times its amplification: what a rule compares."""
        return self.displacement * self.amplification


def layer_sizes(network: Network, x: Tensor, y: Target) -> list[LayerSize]:
    """The size of each free node, from the first to the last, in float64 and for an infinitesimal nudge.

    Args:
        network: the network, with its loss.
        x: (batch, *input shape).
        y: the targets.

    Raises:
        InputError: the network has no loss, or feedback gains that no rule can cancel.
    """
    copied, x = double(network), x.double()
    found = estimate(copied, InfinitesimalNudge(FromFeedforward(FAR), FAR), x, y)
    assert found.nudged is not None
    amplification = amplification_from(copied.landscape(x), loss_of(copied).nodes)
    return [
        LayerSize(node, size(found.free.state[node]), size(found.nudged.state[node]), amplification[node])
        for node in copied.free
    ]


def size(value: Tensor) -> float:
    return float(value.square().mean().sqrt())


def table_of_sizes(sizes: Sequence[LayerSize], title: str) -> Table:
    """A table of ``layer_sizes``."""
    about = "activity, displacement for each unit of beta: root mean squares; amplification: 1 / feedback gains"
    table = titled(title, about, "node", *(">activity", ">displacement", ">amplification", ">product"))
    for each in sizes:
        numbers = (each.activity, each.displacement, each.amplification, each.contrast)
        table.add_row(each.node, *(f"{number:.2g}" for number in numbers))
    return table
