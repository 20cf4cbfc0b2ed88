"""A model, as an immutable snapshot: a reader keeps what it has while a newer one takes its place."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from service.bounds import cut, shown
from service.errors import VersionNotFound
from service.lora.chain import LoRAChain, Trainable
from service.lora.grouped import AnyMaps, ChainMaps
from service.lora.layer import LoRALinear
from service.lora.names import by_layer
from service.lora.spec import AnySpec, Spec
from service.models.base import Base
from service.models.combined import Combined
from service.models.versions import FIRST, Mark, Marks, Origin, Version


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """What is known of one adapter at one version; its weights may be on the disk alone.

    It stands on one base, or as a chain of layers on one for each.
    """

    id: str
    spec: AnySpec
    seed: int
    base_ids: tuple[str, ...]  # one for each layer
    created_at: datetime
    updated_at: datetime
    version: int = 0
    revision: int = 0  # rises with every change
    name: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    last_loss: float | None = None  # of the last training
    kept: Marks = (FIRST,)  # versions, the oldest first and this one last
    combined: Combined | None = None

    def next(self, at: datetime, origin: Origin, **known: Any) -> Version:
        """The version that comes next; made from this one, unless it has another `parent`."""
        return Version(**{"number": self.version + 1, "parent": self.version, **known}, created_at=at, origin=origin)

    def rolled_back(self, at: datetime, to: Version) -> Version:
        """The next version where it has the weights, hence the losses, of an earlier one."""
        return self.next(at, "rollback", parent=to.number, loss=to.loss, validation_loss=to.validation_loss)

    def published(self, version: Version, kept: Marks) -> Self:
        """This model at its next version, beside which these are kept."""
        return replace(
            self,
            updated_at=version.created_at,
            version=version.number,
            revision=self.revision + 1,
            last_loss=version.loss if version.origin == "training" else self.last_loss,
            kept=kept,
        )

    @property
    def before(self) -> Mark:
        """The newest version that is kept before the current one.

        Raises:
            VersionNotFound: where there is none.
        """
        if len(self.kept) == 1:
            raise VersionNotFound(f"model {self.id} keeps no version before the current one, which is {self.version}")
        return self.kept[-2]

    def must_keep(self, number: int) -> None:
        """Raise VersionNotFound unless a version is kept."""
        numbers = [mark.number for mark in self.kept]
        if number not in numbers:
            there = ", ".join(map(str, reversed(numbers)))
            raise VersionNotFound(f"model {self.id} keeps no version {shown(number)}; it keeps {cut(there, 100)}")

    @property
    def base_id(self) -> str | None:
        """That of its one layer; a chain has several."""
        return self.base_ids[0] if len(self.base_ids) == 1 else None

    @property
    def nbytes(self) -> int:
        """What the adapter takes; the base is shared and counted once, on its own."""
        return self.spec.adapter_bytes

    @property
    def ground(self) -> str:
        """The same for models whose rows may share a pass: the base, of a chain the chain itself."""
        return self.base_id or f"{self.id}@{self.version}"

    def noted(self, at: datetime, **notes: Any) -> Self:
        """This model under another name or with other metadata."""
        return replace(self, updated_at=at, revision=self.revision + 1, **notes)


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedModel(Model):
    """A model with its weights."""

    bases: tuple[Base, ...]
    adapter: dict[str, Tensor]

    @classmethod
    def of(cls, model: Model, bases: tuple[Base, ...], adapter: dict[str, Tensor]) -> "LoadedModel":
        """The model with these weights."""
        return cls(**{each.name: getattr(model, each.name) for each in fields(Model)}, bases=bases, adapter=adapter)

    def known_as(self, model: Model) -> "LoadedModel":
        """These weights with what is known of their model now."""
        known = LoadedModel.of(model, self.bases, self.adapter)
        known.__dict__["maps"] = self.maps  # the same tensors, so whatever is kept for these maps still serves
        return known

    def unloaded(self) -> Model:
        """What is known of it without its weights."""
        return Model(**{each.name: getattr(self, each.name) for each in fields(Model)})

    @property
    def layer(self) -> Trainable:
        """The layer this model computes, or the chain of them."""
        layers = tuple(
            LoRALinear(base.weight, base.bias, scaling=spec.scaling, frozen_rank=spec.frozen_rank, **tensors)
            for spec, base, tensors in self._parts()
        )
        return layers[0] if len(layers) == 1 else LoRAChain(layers, self.spec.activations)

    @cached_property
    def maps(self) -> AnyMaps:
        """What a forward multiplies with: views of the tensors."""
        each = tuple(base.maps.adapted(layer) for base, layer in zip(self.bases, self.layer.layers, strict=True))
        return each[0] if len(each) == 1 else ChainMaps(each, self.spec.activations)

    @cached_property
    def row_cost(self) -> int:
        """Multiplications of one row, about."""
        return sum(spec.in_features * spec.out_features for spec in self.spec.layers)

    @cached_property
    def widest(self) -> int:
        """The most numbers that a row becomes between two layers, or at the end."""
        return max(spec.out_features for spec in self.spec.layers)

    @property
    def base(self) -> Base:
        """The base of its one layer; of a chain, of its first."""
        return self.bases[0]

    def ready(self) -> Self:
        """This model once its maps are made: those of DoRA pass over the whole weight."""
        _ = self.maps
        return self

    def _parts(self) -> Iterator[tuple[Spec, Base, dict[str, Any]]]:
        """Each layer's settings, base and tensors."""
        return zip(self.spec.layers, self.bases, by_layer(self.adapter, len(self.bases)), strict=True)

    def noted(self, at: datetime, **notes: Any) -> Self:
        """This model under another name or with other metadata."""
        noted = super().noted(at, **notes)
        noted.__dict__["maps"] = self.maps
        return noted
