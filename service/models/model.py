"""A model, as an immutable snapshot: a reader keeps what it has while a newer one takes its place."""

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from service.bounds import cut, shown
from service.errors import VersionNotFound
from service.lora.grouped import Maps
from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from service.models.base import Base
from service.models.versions import FIRST, Mark, Marks, Origin, Version


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """What is known of one adapter on one base, at one version; its weights may be on the disk alone."""

    id: str
    spec: Spec
    seed: int
    base_id: str
    created_at: datetime
    updated_at: datetime
    version: int = 0
    revision: int = 0  # rises with every change
    name: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    last_loss: float | None = None  # of the last training
    kept: Marks = (FIRST,)  # versions, the oldest first and this one last

    def next(self, at: datetime, origin: Origin, **known: Any) -> Version:
        """The version that comes next; made from this one, unless it has another `parent`."""
        return Version(**{"number": self.version + 1, "parent": self.version, **known}, created_at=at, origin=origin)

    def rolled_back(self, at: datetime, to: Version) -> Version:
        """The next version where it has the weights, hence the loss, of an earlier one."""
        return self.next(at, "rollback", parent=to.number, loss=to.loss)

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
    def nbytes(self) -> int:
        """What the adapter takes; the base is shared and counted once, on its own."""
        return self.spec.adapter_bytes

    def noted(self, at: datetime, **notes: Any) -> Self:
        """This model under another name or with other metadata."""
        return replace(self, updated_at=at, revision=self.revision + 1, **notes)


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedModel(Model):
    """A model with its weights."""

    base: Base
    adapter: dict[str, Tensor]

    @classmethod
    def of(cls, model: Model, base: Base, adapter: dict[str, Tensor]) -> "LoadedModel":
        """The model with these weights."""
        return cls(**{each.name: getattr(model, each.name) for each in fields(Model)}, base=base, adapter=adapter)

    def unloaded(self) -> Model:
        """What is known of it without its weights."""
        return Model(**{each.name: getattr(self, each.name) for each in fields(Model)})

    @property
    def layer(self) -> LoRALinear:
        """The layer this model computes."""
        parts: dict[str, Any] = {**self.adapter, "scaling": self.spec.scaling, "frozen_rank": self.spec.frozen_rank}
        return LoRALinear(self.base.weight, self.base.bias, **parts)

    @cached_property
    def maps(self) -> Maps:
        """What a forward multiplies with: views of the tensors."""
        return self.base.maps.adapted(self.layer)

    def noted(self, at: datetime, **notes: Any) -> Self:
        """This model under another name or with other metadata."""
        noted = super().noted(at, **notes)
        noted.__dict__["maps"] = self.maps  # the same tensors, so whatever is kept for these maps still serves
        return noted
