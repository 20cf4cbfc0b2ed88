"""One layer of every run on batches of rows: forth to its outputs, and back to its gradients."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import Tensor

from service.training.adapters import Part
from service.training.arrays import Array, stacked
from service.training.magnitudes import Magnitudes


class Pass:
    """Arrays have the runs in front, or one where all share the same rows or the same base.

    Args:
        inputs: each run's rows where these never change: then what the frozen part makes of them is computed once.
    """

    def __init__(self, part: Part, inputs: Sequence[Tensor] | None = None) -> None:
        self._part, self._xp, self._backend = part, part.backend.xp, part.backend
        self._buffer = cache(lambda name, *shape: part.backend.zeros(*shape, dtype="float32"))
        self._stretches = "magnitude" in part.of
        self._W: Array = None
        self._b: Array = None
        if inputs is None or self._stretches:
            self._W, self._b = self._base()
        self._magnitudes = Magnitudes(part, self._W, self._buffer) if self._stretches else None
        self.known: Array = None if inputs is None else part.frozen(inputs)
        self._x: Array = None
        self._down: Array = None
        self._B: Array = None
        self._mask: Array = None

    def _base(self) -> tuple[Array, Array | None]:
        """The frozen weights (runs, out, in), and the biases (runs, 1, out) where the adapters have none."""
        layers = self._part.layers
        W = stacked(self._backend, [layer.frozen_weight() for layer in layers], self._backend.array)
        biases: list[Any] = [layer.bias for layer in layers]
        if "own_bias" in self._part.of or biases[0] is None:
            return W, None
        return W, stacked(self._backend, biases, self._backend.array)[:, None]

    def forward(self, x: Array, frozen: Array = None, mask: Array = None) -> Array:
        """The outputs (runs, batch, out) for inputs (runs, batch, in).

        Args:
            frozen: what the frozen part makes of them, where that is known.
            mask: what dropout multiplies the adapter's inputs by.
        """
        xp, of, runs = self._xp, self._part.of, len(self._part.layers)
        if frozen is None:
            frozen = xp.matmul(x, self._W.swapaxes(1, 2))
            if self._b is not None and not self._stretches:
                frozen += self._b
        self._x = x = x if mask is None else x * mask
        self._mask, self._B = mask, self._buffer("B", *of["B"].shape)
        xp.multiply(of["B"], self._part.scaling, out=self._B)
        self._down = self._buffer("down", runs, x.shape[1], self._B.shape[2])
        p = self._buffer("p", runs, *frozen.shape[1:])
        xp.matmul(x, of["A"].swapaxes(1, 2), out=self._down)
        xp.matmul(self._down, self._B.swapaxes(1, 2), out=p)
        if self._magnitudes is None:
            p += frozen
        else:
            p = self._magnitudes.stretched(p, frozen, self._B, None if mask is None else x)
            if self._b is not None:
                p += self._b
        if "own_bias" in of:
            p += of["own_bias"][:, None]
        return p

    def backward(self, dp: Array, *, through: bool) -> Array:
        """Write the gradients of what was last gone forward, from that in its outputs; return that in its inputs.

        Args:
            through: whether anybody wants to know the latter.
        """
        xp, gradient, outer = self._xp, self._part.gradient_of, dp
        if "own_bias" in gradient:
            gradient["own_bias"][...] = dp.sum(1)
        if self._magnitudes is not None:
            dp = self._magnitudes.pulled(dp)
        pulled = self._buffer("pulled", *self._down.shape)
        xp.matmul(dp, self._B, out=pulled)
        xp.matmul(pulled.swapaxes(1, 2), self._x, out=gradient["A"])
        xp.matmul(dp.swapaxes(1, 2), self._down, out=gradient["B"])
        gradient["B"] *= self._part.scaling
        mask, self._x, self._mask = self._mask, None, None  # large, and needed no longer
        if not through:
            return dp
        dx = xp.matmul(pulled, self._part.of["A"])
        if mask is None:
            return dx + xp.matmul(dp, self._W)
        if self._magnitudes is not None:
            dx += xp.matmul(dp - outer, self._W)
        return dx * mask + xp.matmul(outer, self._W)
