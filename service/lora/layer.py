"""A linear layer with a low-rank adapter, as a value: tensors that nobody changes, and the maps they define."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

TINY = 1e-30  # a direction without any length stays 0 whatever it is divided by


@dataclass(frozen=True, eq=False)
class LoRALinear:
    """y = x Wᵀ + b + s·(x Aᵀ) Bᵀ: a frozen layer W, b plus a trained change of rank r (LoRA, arXiv:2106.09685).

    Shapes: weight (out, in), bias (out,), A (r, in), B (out, r), own_bias (out,), magnitude (out,). Where the adapter
    trains the bias, `own_bias` is its copy and stands in for `bias`; the base itself may be shared and never changes.

    With a `magnitude` m, the rows of V = W + s·B A give directions alone, and m their lengths: y = m/‖V‖ ∘ (x Vᵀ) + b
    (DoRA, arXiv:2402.09353). The last `frozen_rank` ranks of A and B are as they began: they take from W what the
    others began with, so that such a start changes no output, and W stays what it is for others.
    """

    weight: Tensor
    bias: Tensor | None
    A: Tensor
    B: Tensor
    scaling: float
    own_bias: Tensor | None = None
    magnitude: Tensor | None = None
    frozen_rank: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""
        change = self.scaling * linear(linear(x, self.A), self.B)
        if self.magnitude is None:
            return linear(x, self.weight, self.whole_bias) + change
        y = self.stretch() * (linear(x, self.weight) + change)
        return y if self.whole_bias is None else y + self.whole_bias

    @property
    def layers(self) -> "tuple[LoRALinear, ...]":
        """Itself, as the one layer there is: what trains layers trains chains of them."""
        return (self,)

    @property
    def activations(self) -> tuple[str, ...]:
        """Those between its layers: none."""
        return ()

    @property
    def in_features(self) -> int:
        """How many numbers a row of inputs has."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """How many numbers a row of outputs has."""
        return len(self.weight)

    @property
    def rank(self) -> int:
        """How many ranks are trained."""
        return len(self.A) - self.frozen_rank

    @property
    def whole_bias(self) -> Tensor | None:
        """The bias that is added: the adapter's own copy where it has one."""
        return self.bias if self.own_bias is None else self.own_bias

    def frozen(self, x: Tensor) -> Tensor:
        """The part of the output (…, out) that training does not change; with a magnitude, of what that stretches."""
        bias = self.bias if self.own_bias is None and self.magnitude is None else None
        y = linear(x, self.weight, bias)
        if self.frozen_rank:
            y += self.scaling * linear(linear(x, self.A[self.rank :]), self.B[:, self.rank :])
        return y

    @property
    def frozen_id(self) -> tuple[int, ...]:
        """The same for two layers whose frozen parts are one in memory."""
        ranks = (id(self.A), id(self.B)) if self.frozen_rank else ()
        return id(self.weight), id(self.bias), self.own_bias is None, *ranks

    def frozen_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The part of the weight (out, in) that training does not change."""
        weight, A, B = (tensor.to(dtype) for tensor in (self.weight, self.A[self.rank :], self.B[:, self.rank :]))
        return weight + self.scaling * (B @ A) if self.frozen_rank else weight

    def direction(self) -> Tensor:
        """W + s·B A, (out, in)."""
        return self.weight + self.scaling * (self.B @ self.A)

    def stretch(self) -> Tensor:
        """What a magnitude multiplies the outputs with: m/‖V‖, (out,)."""
        assert self.magnitude is not None, "only DoRA stretches"
        lengths: Tensor = torch.linalg.vector_norm(self.direction(), dim=1)
        return self.magnitude / lengths.clamp_min(TINY)

    def merged(self) -> Tensor:
        """One weight (out, in) that does the work of both."""
        return self.direction() if self.magnitude is None else self.stretch()[:, None] * self.direction()

    def delta(self) -> Tensor:
        """The change of the weight that the adapter stands for, (out, in): s·B A where it has no magnitude."""
        return self.scaling * (self.B @ self.A) if self.magnitude is None else self.merged() - self.weight

    def tensors(self) -> dict[str, Tensor]:
        """All its tensors by name, those of the base too."""
        return {"weight": self.weight, **({} if self.bias is None else {"bias": self.bias}), **self.adapter()}

    def adapter(self) -> dict[str, Tensor]:
        """The tensors that are the adapter's own, by name."""
        named = {"A": self.A, "B": self.B, "own_bias": self.own_bias, "magnitude": self.magnitude}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def adapted(self, adapter: Mapping[str, Any]) -> "LoRALinear":
        """The same base under another adapter of the same kind."""
        return replace(self, **adapter)

    def trained(self) -> dict[str, Tensor]:
        """What training changes, by name: the adapter without its frozen ranks."""
        return {**self.adapter(), "A": self.A[: self.rank], "B": self.B[:, : self.rank]}

    def learned(self, trained: Mapping[str, Tensor]) -> "LoRALinear":
        """The layer with what training has made of `trained`."""
        if not self.frozen_rank:
            return self.adapted(trained)
        A = torch.cat([trained["A"], self.A[self.rank :]])
        B = torch.cat([trained["B"], self.B[:, self.rank :]], dim=1)
        return self.adapted({**trained, "A": A, "B": B})
