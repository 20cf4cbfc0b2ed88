"""The loss of every run, and its gradient, from rows: full batches or shuffled minibatches of them."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.lora.activations import activated, slope
from service.training.adapters import Adapters
from service.training.arrays import Array, Backend, stacked
from service.training.losses import LOSSES
from service.training.passes import Pass

TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs x (n, in), targets y, (n, out) numbers or (n,) classes, and perhaps a weight (n,) for each row."""

    x: Tensor
    y: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def at(self, index: Tensor) -> "Rows":
        """Some of the rows."""
        return Rows(self.x[index], self.y[index], None if self.weight is None else self.weight[index])

    def to(self, device: torch.device) -> "Rows":
        """The rows on a device."""
        return Rows(self.x.to(device), self.y.to(device), None if self.weight is None else self.weight.to(device))


@dataclass(frozen=True)
class Draws:
    """Where a run's random numbers come from: the order of its rows, and what dropout drops of them."""

    order: torch.Generator
    masks: torch.Generator


class ByRows:
    """The loss of every run, and its gradient, from its rows.

    Arrays have the runs in front, or one where all share the same rows.
    """

    def __init__(
        self,
        adapters: Adapters,
        rows: Sequence[Rows],
        draws: Sequence[Draws],
        loss: str,
        batch_size: int | None,
        looked_at: int,
        dropout: float = 0.0,
    ) -> None:
        backend = adapters.backend
        self.adapters, self._draws, self._loss, self._xp = adapters, draws, LOSSES[loss], backend.xp
        self._n, self._looked_at, self._dropout = len(rows[0]), looked_at, dropout
        self._size = self._n if batch_size is None else batch_size
        self._shuffled = batch_size is not None
        self.steps = -(-self._n // self._size)
        self._x = stacked(backend, [r.x for r in rows], backend.array)
        self._y = stacked(backend, [r.y for r in rows], backend.array)
        first, *others = adapters.parts
        self._passes = [Pass(first, [r.x for r in rows]), *map(Pass, others)]
        self._activations = adapters.learners[0].activations
        self._between: list[Array] = []  # what the activations were given
        self._frozen = self._passes[0].known
        weights = [r.weight for r in rows]
        self._weight = stacked(backend, weights, backend.array) if weights[0] is not None else None
        self._total = self._n if self._weight is None else self._weight.sum(-1, dtype=self._xp.float64)
        self._counts_hits = loss == "cross_entropy"
        self._hits = backend.zeros(len(adapters), dtype="float64")

    @property
    def accuracy(self) -> Array | None:
        """The share of rows (runs,) whose largest output was their class, since the last `epoch` or `measure` began."""
        return self._hits / self._n if self._counts_hits else None

    def epoch(self) -> Iterator[Array]:
        """After each batch, once its gradient is written, its losses times its share of all weight: (runs,)."""
        self._hits[...] = 0
        index = self._orders() if self._shuffled else None
        for start in range(0, self._n, self._size):
            rows = slice(start, start + self._size)
            if index is None:
                yield self._losses(self._x, self._frozen, self._y, self._weight)
            else:
                weight = None if self._weight is None else self._taken(self._weight, index[:, rows])
                x, frozen, y = (self._taken(part, index[:, rows]) for part in (self._x, self._frozen, self._y))
                yield self._losses(x, frozen, y, weight)

    def measure(self) -> Generator[None, None, Array]:
        """The losses of the parameters as they are; yields after each piece of the rows."""
        self._hits[...] = 0
        losses = self.adapters.backend.zeros(len(self.adapters), dtype="float64")
        for start in range(0, self._n, self._looked_at):
            rows = slice(start, start + self._looked_at)
            p = self._outputs(self._x[:, rows], self._frozen[:, rows])
            row_losses, _ = self._compared(p, self._y[:, rows])
            losses += self._share(row_losses, None if self._weight is None else self._weight[:, rows])
            yield None
        return losses

    def lost(self, losses: Array) -> None:
        """No loss loses its digits here."""

    def _orders(self) -> Array:
        """A new order of the rows for each run, (runs, n)."""
        orders = np.empty((len(self._draws), self._n), dtype="int64")
        for order, draw in zip(orders, self._draws, strict=True):
            torch.randperm(self._n, generator=draw.order, out=torch.from_numpy(order))
        return self.adapters.backend.of(orders, "int64")

    def _taken(self, part: Array, index: Array) -> Array:
        """The rows that an index (runs, batch) names, of each run's own or of those that all share."""
        if len(part) == 1:
            return part[0][index]
        runs = self._xp.arange(len(part), device=part.device)[:, None]
        return part[runs, index]

    def _losses(self, x: Array, frozen: Array, y: Array, weight: Array | None) -> Array:
        xp = self._xp
        row_losses, dp = self._compared(self._outputs(x, frozen, drops=bool(self._dropout)), y)
        if weight is not None:
            dp *= weight[..., None]
        self._back(dp)
        if weight is None:
            self.adapters.gradient *= 1 / x.shape[1]
        else:  # a batch without any weight teaches nothing
            self.adapters.gradient /= xp.clip(weight.sum(-1), TINY, None)[:, None]
        return self._share(row_losses, weight)

    def _outputs(self, x: Array, frozen: Array, *, drops: bool = False) -> Array:
        """The outputs (runs, batch, out) of the last layer; `frozen` is the first layer's."""
        first, *others = self._passes
        p = first.forward(x, frozen, self._masks(x) if drops else None)
        self._between = []
        for name, each in zip(self._activations, others, strict=True):
            self._between.append(p)
            x = activated(name, p)
            p = each.forward(x, mask=self._masks(x) if drops else None)
        return p

    def _back(self, dp: Array) -> None:
        """Write the gradients of all layers, from that in the outputs."""
        for place in range(len(self._passes) - 1, 0, -1):
            dx = self._passes[place].backward(dp, through=True)
            dp = dx * slope(self._activations[place - 1], self._between[place - 1])
        self._passes[0].backward(dp, through=False)

    def _compared(self, p: Array, y: Array) -> tuple[Array, Array]:
        """The loss of each row and its gradient in the outputs, counting the rows whose largest output is right."""
        if self._counts_hits:
            self._hits += (self._xp.argmax(p, axis=-1) == y).sum(-1)
        return self._loss(self._xp, p, y)

    def _share(self, row_losses: Array, weight: Array | None) -> Array:
        """What these rows add to the mean over all rows: (runs,), in float64."""
        if weight is not None:
            row_losses = row_losses * weight
        return row_losses.sum(-1, dtype=self._xp.float64) / self._total

    def _masks(self, x: Array) -> Array:
        """Zero with probability p, otherwise 1 / (1 - p), for each run's own input numbers."""
        masks = [keep(x.shape[1:], self._dropout, draw.masks) for draw in self._draws]
        return stacked(self.adapters.backend, masks, self._placed)

    def _placed(self, mask: Tensor) -> Array:
        backend: Backend = self.adapters.backend
        return backend.of(mask.numpy(), "float32")


def keep(shape: Sequence[int], p: float, masks: torch.Generator) -> Tensor:
    """What to multiply inputs by: zero with probability p, otherwise 1 / (1 - p)."""
    return (torch.rand(tuple(shape), generator=masks) >= p).float().div_(1 - p)
