"""The adapters of equal-shaped layers, or chains of them, one row for each run, and their gradients likewise."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from service.lora.chain import Trainable
from service.lora.layer import LoRALinear
from service.lora.names import by_layer
from service.training.arrays import Array, Backend, stacked


@dataclass(frozen=True, eq=False)
class Part:
    """One layer of every run.

    Shapes: `of` and `gradient_of` are views by name, A (runs, r, in), B (runs, out, r), own_bias and magnitude
    (runs, out); `scaling` (runs, 1, 1), or (1, 1, 1) where all have the same.
    """

    backend: Backend
    layers: Sequence[LoRALinear]
    of: dict[str, Array]
    gradient_of: dict[str, Array]
    scaling: Array

    def frozen(self, x: Sequence[torch.Tensor]) -> Array:
        """What the frozen parts make of each run's rows x: (runs, n, out), or (1, n, out) where all are one."""
        seen: dict[tuple[int, ...], Array] = {}

        def product(run: int) -> Array:
            key = (id(x[run]), *self.layers[run].frozen_id)
            if key not in seen:
                seen[key] = self.backend.array(self.layers[run].frozen(x[run]))
            return seen[key]

        return stacked(self.backend, [product(run) for run in range(len(x))])


class Adapters:
    """Copies of the adapters that training moves in place.

    `parameters` and `gradient` are (runs, numbers), of which the parts have views. In memory B lies transposed, its
    ranks one after another as those of A do.
    """

    def __init__(self, backend: Backend, learners: Sequence[Trainable], dtype: str) -> None:
        self.backend, self.learners, self.dtype = backend, learners, dtype
        adapters = [learner.trained() for learner in learners]
        flat = [
            torch.cat([(tensor.T if _lies_transposed(name) else tensor).flatten() for name, tensor in adapter.items()])
            for adapter in adapters
        ]
        self.parameters = backend.copied(backend.xp.stack([backend.array(vector, dtype) for vector in flat]))
        self.gradient = backend.xp.zeros_like(self.parameters)
        self._shapes = {name: tuple(tensor.shape) for name, tensor in adapters[0].items()}
        self._of = self._views(self.parameters)
        count = len(learners[0].layers)
        views = zip(by_layer(self._of, count), by_layer(self._views(self.gradient), count), strict=True)
        self.parts = [
            Part(backend, layers, of, gradient_of, self._scaling(layers))
            for place, (of, gradient_of) in enumerate(views)
            for layers in [[learner.layers[place] for learner in learners]]
        ]

    def __len__(self) -> int:
        return len(self.learners)

    def spread(self, by_name: dict[str, float]) -> Array:
        """One number for each parameter (numbers,), from one for each name."""
        numbers = [
            torch.full((prod(shape),), by_name[name.rpartition(".")[2]], dtype=torch.float64)
            for name, shape in self._shapes.items()
        ]
        return self.backend.array(torch.cat(numbers).to(self.backend.device), self.dtype)

    def learned(self, run: int) -> Trainable:
        """A run's layers as they are now, their adapter a float32 copy."""
        return self.learners[run].learned({name: self.backend.tensor(view[run]) for name, view in self._of.items()})

    def _scaling(self, layers: Sequence[LoRALinear]) -> Array:
        scaling = self.backend.of([layer.scaling for layer in layers], self.dtype)[:, None, None]
        return scaling[:1] if len({layer.scaling for layer in layers}) == 1 else scaling

    def _views(self, flat: Array) -> dict[str, Array]:
        views, start = {}, 0
        for name, shape in self._shapes.items():
            view = flat[:, start : start + prod(shape)]
            lying = shape[::-1] if _lies_transposed(name) else shape
            views[name] = view.reshape(len(flat), *lying)
            if _lies_transposed(name):
                views[name] = views[name].swapaxes(1, 2)
            start += prod(shape)
        return views


def _lies_transposed(name: str) -> bool:
    return name.rpartition(".")[2] == "B"
