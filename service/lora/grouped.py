"""Forward passes on bare arrays: one layer over its rows, or one frozen layer over rows of many adapters.

numpy on the CPU, where its products cost a fifth of torch's calls; torch elsewhere, by the same lines.
"""

from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.lora.activations import activated
from service.lora.layer import LoRALinear

Matrix = Any  # a numpy array, or a torch tensor off the CPU

# Where numpy says nothing of overflows, which the outputs tell: entered in a quarter of the time of `np.errstate`.
_quiet = copy_context()
_quiet.run(np.seterr, all="ignore")


@dataclass(frozen=True, eq=False, slots=True)
class Maps:
    """What a forward multiplies with: y = (x·weight + s·(x·down)·up)·stretch + bias, views of a layer's tensors.

    Shapes: weight (in, out), bias (out,), down (in, r), up (r, out), stretch (out,), which only DoRA has. Where `down`
    is None the adapter is merged into the weight, or there is none.
    """

    weight: Matrix
    bias: Matrix | None
    down: Matrix | None = None
    up: Matrix | None = None
    scaling: float = 1.0
    stretch: Matrix | None = None

    @classmethod
    def frozen(cls, weight: Tensor, bias: Tensor | None) -> "Maps":
        """The maps of a frozen layer, without a copy of any of its numbers."""
        return cls(_bare(weight.T), None if bias is None else _bare(bias))

    @classmethod
    def of(cls, layer: LoRALinear) -> "Maps":
        """The maps of a layer, likewise."""
        return cls.frozen(layer.weight, layer.bias).adapted(layer)

    def adapted(self, layer: LoRALinear) -> "Maps":
        """The maps of a layer that stands on this frozen one, whose arrays they share."""
        bias = self.bias if layer.own_bias is None else _bare(layer.own_bias)
        stretch = None if layer.magnitude is None else _bare(layer.stretch())
        return Maps(self.weight, bias, _bare(layer.A.T), _bare(layer.B.T), layer.scaling, stretch)

    @property
    def weights(self) -> tuple[Matrix, ...]:
        """The weights that a merge makes anew."""
        return (self.weight,)

    def __call__(self, x: Matrix) -> Matrix:
        """Map rows (n, in) to (n, out)."""
        y = x @ self.weight
        self.finish(x, y)
        return y

    def finish(self, x: Matrix, y: Matrix) -> None:
        """Make outputs (n, out) of what the weight makes of rows x (n, in)."""
        if self.stretch is not None:
            self.adapt(x, y)
            y *= self.stretch
        if self.bias is not None:
            y += self.bias
        if self.stretch is None:
            self.adapt(x, y)

    def adapt(self, x: Matrix, y: Matrix) -> None:
        """Add the adapter's part for rows x (n, in) to y (n, out)."""
        if self.down is not None:
            low = x @ self.down  # (n, r)
            if self.scaling != 1:
                low *= self.scaling
            y += low @ self.up

    def merged(self) -> "Maps":
        """The same map with the adapter in a weight of its own: one product where there were three."""
        if self.down is None:
            return self
        change = (self.down * self.scaling) @ self.up
        change += self.weight
        if self.stretch is not None:
            change *= self.stretch
        return Maps(change, self.bias)


@dataclass(frozen=True, eq=False, slots=True)
class ChainMaps:
    """The maps of layers one after another, with the activations between them."""

    maps: tuple[Maps, ...]
    activations: tuple[str, ...]

    @property
    def weight(self) -> Matrix:
        """The first layer's weight."""
        return self.maps[0].weight

    @property
    def weights(self) -> tuple[Matrix, ...]:
        """The weights that a merge makes anew."""
        return tuple(each.weight for each in self.maps)

    @property
    def down(self) -> Matrix | None:
        """None where the adapters are merged."""
        return self.maps[0].down

    def __call__(self, x: Matrix) -> Matrix:
        """Map rows (n, in of the first) to (n, out of the last)."""
        y = self.maps[0](x)
        for name, each in zip(self.activations, self.maps[1:], strict=True):
            y = each(activated(name, y))
        return y

    def merged(self) -> "ChainMaps":
        """The same with each adapter in the weight of its layer."""
        return ChainMaps(tuple(each.merged() for each in self.maps), self.activations)


AnyMaps = Maps | ChainMaps


def grouped(x: Matrix, members: Sequence[tuple[Maps, int]]) -> Matrix:
    """The outputs (n, out) for rows x (n, in), of which the first belong to the first member, and so on.

    All members stand on one frozen weight, which is passed over once; ranks and biases may differ.

    Args:
        members: each with how many of the rows are its own.
    """
    first = members[0][0]
    y = x @ first.weight
    shared = all(maps.bias is first.bias and maps.stretch is None for maps, _ in members)
    if shared and first.bias is not None:
        y += first.bias
    at = 0
    for maps, rows in members:
        its = y[at : at + rows]
        (maps.adapt if shared else maps.finish)(x[at : at + rows], its)
        at += rows
    return y


def quietly(compute: Callable[..., Matrix], *given: Any) -> Matrix:
    """What is computed, without numpy's warnings of overflows."""
    return _quiet.copy().run(compute, *given)


def _bare(tensor: Tensor) -> Matrix:
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def placed(x: NDArray[np.float32], like: Matrix) -> Matrix:
    """The rows where the maps' arrays are."""
    if isinstance(like, np.ndarray):
        return x
    return torch.from_numpy(np.require(x, requirements="W")).to(
        like.device
    )  # torch warns of memory it could not write to


def fetched(y: Matrix) -> NDArray[np.float32]:
    """The outputs as numpy has them."""
    outputs: NDArray[np.float32] = y if isinstance(y, np.ndarray) else y.cpu().numpy()
    return outputs
