"""The adapters of equal-shaped layers, one row for each run, and their gradients in the same places."""

from collections.abc import Sequence
from math import prod

import torch

from service.lora.layer import LoRALinear
from service.training.arrays import Array, Backend, stacked


class Adapters:
    """Copies of the layers' adapters that training moves in place.

    Shapes: `parameters` and `gradient` (runs, numbers); `of` and `gradient_of` are views of them by name, A
    (runs, r, in), B (runs, out, r), own_bias and magnitude (runs, out); `scaling` (runs, 1, 1), or (1, 1, 1) where all
    have the same. In memory B lies transposed, its ranks one after another as those of A do.
    """

    def __init__(self, backend: Backend, layers: Sequence[LoRALinear], dtype: str) -> None:
        self.backend, self.layers, self.dtype = backend, layers, dtype
        adapters = [layer.trained() for layer in layers]
        flat = [
            torch.cat([(tensor.T if name == "B" else tensor).flatten() for name, tensor in adapter.items()])
            for adapter in adapters
        ]
        self.parameters = backend.copied(backend.xp.stack([backend.array(vector, dtype) for vector in flat]))
        self.gradient = backend.xp.zeros_like(self.parameters)
        self._shapes = {name: tuple(tensor.shape) for name, tensor in adapters[0].items()}
        self.of, self.gradient_of = self._views(self.parameters), self._views(self.gradient)
        scalings = {layer.scaling for layer in layers}
        self.scaling = backend.of([layer.scaling for layer in layers], dtype)
        self.scaling = self.scaling[:1, None, None] if len(scalings) == 1 else self.scaling[:, None, None]

    def __len__(self) -> int:
        return len(self.layers)

    def spread(self, by_name: dict[str, float]) -> Array:
        """One number for each parameter (numbers,), from one for each name."""
        numbers = [
            torch.full((prod(shape),), by_name[name], dtype=torch.float64) for name, shape in self._shapes.items()
        ]
        return self.backend.array(torch.cat(numbers).to(self.backend.device), self.dtype)

    def layer(self, run: int) -> LoRALinear:
        """A run's layer as it is now, its adapter a float32 copy."""
        views = {name: self.backend.tensor(view[run]) for name, view in self.of.items()}
        return self.layers[run].learned(views)

    def frozen(self, x: Sequence[torch.Tensor]) -> Array:
        """What the frozen parts make of each run's rows x: (runs, n, out), or (1, n, out) where all are one."""
        seen: dict[tuple[int, ...], Array] = {}

        def product(run: int) -> Array:
            layer = self.layers[run]
            key = (id(x[run]), *layer.frozen_id)
            if key not in seen:
                seen[key] = self.backend.array(layer.frozen(x[run]))
            return seen[key]

        return stacked(self.backend, [product(run) for run in range(len(self))])

    def _views(self, flat: Array) -> dict[str, Array]:
        views, start = {}, 0
        for name, shape in self._shapes.items():
            view = flat[:, start : start + prod(shape)]
            lying = shape[::-1] if name == "B" else shape
            views[name] = view.reshape(len(flat), *lying)
            if name == "B":
                views[name] = views[name].swapaxes(1, 2)
            start += prod(shape)
        return views
