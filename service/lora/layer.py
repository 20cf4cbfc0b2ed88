"""A linear layer with a low-rank adapter, as a value: tensors that nobody changes, and the maps they define."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn.functional import linear


@dataclass(frozen=True, eq=False)
class LoRALinear:
    """y = x Wᵀ + b + s·(x Aᵀ) Bᵀ: a frozen layer W, b plus a trained change of rank r (LoRA, arXiv:2106.09685).

    Shapes: weight (out, in), bias (out,), A (r, in), B (out, r), own_bias (out,). Where the adapter trains the
    bias, `own_bias` is its copy and stands in for `bias`; the base itself may be shared and never changes.
    """

    weight: Tensor
    bias: Tensor | None
    A: Tensor
    B: Tensor
    scaling: float
    own_bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""
        bias = self.bias if self.own_bias is None else self.own_bias
        down = linear(x, self.A)  # (…, r)
        return linear(x, self.weight, bias) + self.scaling * linear(down, self.B)

    def frozen(self, x: Tensor) -> Tensor:
        """The part of the output (…, out) that training does not change."""
        return linear(x, self.weight, self.bias if self.own_bias is None else None)

    def delta(self) -> Tensor:
        """The change of the weight that the adapter stands for: s·B A, (out, in)."""
        return self.scaling * (self.B @ self.A)

    def merged(self) -> Tensor:
        """One weight (out, in) that does the work of both."""
        return self.weight + self.delta()

    def adapter(self) -> dict[str, Tensor]:
        """What training changes, by name."""
        own = {} if self.own_bias is None else {"own_bias": self.own_bias}
        return {"A": self.A, "B": self.B, **own}

    def adapted(self, adapter: Mapping[str, Any]) -> "LoRALinear":
        """The same base under another adapter of the same kind."""
        return replace(self, **adapter)
