"""A base: a frozen linear layer that any number of models may share, and that none of them changes."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from service.bounds import shown
from service.codecs.layer import DType, Layer
from service.errors import Fault, ShapeMismatch
from service.lora.grouped import Maps
from service.lora.spec import FLOAT32_BYTES, Spec


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen linear layer: weight (out, in), bias (out,), in float32; `dtype` is that of the file that it came in."""

    id: str
    weight: Tensor
    bias: Tensor | None
    dtype: DType = "float32"

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, dtype: DType = "float32") -> "Base":
        """The base with these tensors, named by their content: the same weights always get the same id."""
        return cls(content_id(weight, bias, dtype), weight, bias, dtype)

    def spec(self, settings: dict[str, Any]) -> Spec:
        """The spec of an adapter on this base; sizes and bias may be left out, since the base has them.

        Raises:
            ShapeMismatch: for a size or a bias that the base does not have.
        """
        out_features, in_features = self.weight.shape
        own = {"in_features": in_features, "out_features": out_features, "bias": self.bias is not None}
        for field_name, value in own.items():
            given = settings.get(field_name, value)
            if given != value:
                detail = f"{field_name} is {shown(given)}; the base has {shown(value)}, so leave it out"
                raise ShapeMismatch(detail, Fault(f"/{field_name}", detail))
        return Spec(**{**settings, **own})

    @cached_property
    def maps(self) -> Maps:
        """What a forward multiplies with: views of the tensors."""
        return Maps.frozen(self.weight, self.bias)

    @property
    def layer(self) -> Layer:
        """Its tensors as arrays, with the dtype that is kept."""
        return Layer(self.weight.cpu().numpy(), None if self.bias is None else self.bias.cpu().numpy(), self.dtype)

    @property
    def nbytes(self) -> int:
        """What the frozen tensors take."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)


@dataclass(frozen=True, kw_only=True)
class BaseRecord:
    """What is known of a base without its tensors; one that was `uploaded` stays when its last model goes."""

    id: str
    in_features: int
    out_features: int
    bias: bool
    dtype: DType
    created_at: datetime
    uploaded: bool

    @classmethod
    def of(cls, base: Base, created_at: datetime, *, uploaded: bool) -> "BaseRecord":
        """The record of a base that is there."""
        out_features, in_features = base.weight.shape
        return cls(
            id=base.id,
            in_features=in_features,
            out_features=out_features,
            bias=base.bias is not None,
            dtype=base.dtype,
            created_at=created_at,
            uploaded=uploaded,
        )

    @property
    def nbytes(self) -> int:
        """What the tensors take in memory."""
        return FLOAT32_BYTES * self.out_features * (self.in_features + self.bias)


def content_id(weight: Tensor, bias: Tensor | None, dtype: DType = "float32") -> str:
    """`base_` and the SHA-256 of the shapes and the bytes, in the dtype that is kept."""
    kept: torch.dtype = getattr(torch, dtype)
    digest = hashlib.sha256()
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None:
            digest.update(f"{name}:{list(tensor.shape)}:{kept};".encode())
            digest.update(tensor.cpu().to(kept).contiguous().view(torch.uint8).numpy().data)
    return f"base_{digest.hexdigest()}"
