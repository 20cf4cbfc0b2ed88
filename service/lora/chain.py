"""Layers one after another with activations between them, as one value: what a layer is, of several."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from service.lora.activations import activated
from service.lora.layer import LoRALinear
from service.lora.names import by_layer, named


@dataclass(frozen=True, eq=False)
class LoRAChain:
    """y = Lₙ(… a₁(L₁(x))): layers of which each maps what the activation makes of the one before.

    The tensors of its adapter have the place of their layer before their names, as in `0.A`.
    """

    layers: tuple[LoRALinear, ...]
    activations: tuple[str, ...]  # one fewer than layers

    @property
    def in_features(self) -> int:
        """How many numbers a row of inputs has."""
        return self.layers[0].in_features

    @property
    def out_features(self) -> int:
        """How many numbers a row of outputs has."""
        return self.layers[-1].out_features

    @property
    def rank(self) -> int:
        """The least of its layers'."""
        return min(layer.rank for layer in self.layers)

    def __call__(self, x: Tensor) -> Tensor:
        """Map (…, in of the first) to (…, out of the last)."""
        y = self.layers[0](x)
        for name, layer in zip(self.activations, self.layers[1:], strict=True):
            y = layer(activated(name, y))
        return y

    def adapter(self) -> dict[str, Tensor]:
        """The tensors that are the adapter's own, by name."""
        return named([layer.adapter() for layer in self.layers])

    def trained(self) -> dict[str, Tensor]:
        """What training changes, by name."""
        return named([layer.trained() for layer in self.layers])

    def learned(self, trained: Mapping[str, Tensor]) -> "LoRAChain":
        """The chain with what training has made of `trained`."""
        parts = by_layer(trained, len(self.layers))
        return replace(self, layers=tuple(layer.learned(part) for layer, part in zip(self.layers, parts, strict=True)))


# What is trained: one layer, or a chain.
Trainable = LoRALinear | LoRAChain
