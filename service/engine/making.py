"""New models from their settings: checked against what there is room for, then drawn."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from service.clock import instant
from service.engine.capacity import Capacity
from service.engine.settled import SEEDS
from service.errors import Fault, LimitExceeded
from service.lora import init
from service.lora.spec import Spec
from service.models.base import Base
from service.models.budget import Budget
from service.models.model import LoadedModel
from service.models.registry import Registry

WORKING_COPIES = 4  # matrices as large as the base that are there at once while a start looks at it


@dataclass(frozen=True)
class Maker:
    """Makes models that nobody knows yet: the registry gives them their ids when it takes them in."""

    registry: Registry
    budget: Budget
    capacity: Capacity
    device: str

    def one(
        self,
        base: Base | None = None,
        *,
        seed: int | None = None,
        base_seed: int | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> LoadedModel:
        """A model on a base, or on a fresh one that begins from `seed` too, unless it has a seed of its own.

        Raises:
            Validation, ShapeMismatch, LimitExceeded, CapacityExhausted
        """
        spec = Spec(**settings) if base is None else base.spec(settings)
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        needed = spec.adapter_bytes + (spec.base_bytes if base is None else 0)
        self.must_fit(needed)
        self.registry.must_have_room()
        with self.budget.held(needed + WORKING_COPIES * spec.base_bytes * bool(spec.frozen_rank or spec.use_dora)):
            base = base or self._fresh(spec, seed if base_seed is None else base_seed)
            layer = init.begun(spec, seed, base.weight, base.bias)
        at = instant().wall
        return LoadedModel(
            id="",
            base_id=base.id,
            spec=spec,
            seed=seed,
            base=base,
            adapter=layer.adapter(),
            created_at=at,
            updated_at=at,
            name=name,
            metadata=dict(metadata or {}),
        )

    def several(
        self, base: Base | None, common: Mapping[str, Any], own: Sequence[Mapping[str, Any]]
    ) -> list[LoadedModel]:
        """Models on one base, each with settings of its own beside those that they have in common.

        Raises:
            as `one`
        """
        self.registry.must_have_room(len(own))
        made: list[LoadedModel] = []
        with ExitStack() as until_all_are_there:
            for each in own:
                model = self.one(base, **{**common, **each})
                size = model.nbytes + (model.base.nbytes if base is None else 0)
                until_all_are_there.enter_context(self.budget.held(size))
                made.append(model)
                base = model.base
        return made

    def _fresh(self, spec: Spec, seed: int) -> Base:
        return Base.of(*(self.placed(tensor) for tensor in init.frozen(spec, seed)))

    def must_fit(self, needed: int, pointer: str = "/in_features") -> None:
        """Raise LimitExceeded when one layer would take too many bytes."""
        allowed = self.capacity.layer_bytes
        if needed > allowed:
            detail = f"the layer needs {needed} bytes; at most {allowed} are allowed (LORA_LAYER_MIB)"
            raise LimitExceeded(detail, Fault(pointer, detail), bytes_needed=needed, bytes_allowed=allowed)

    def placed(self, tensor: Tensor | None) -> Any:
        """The tensor where the engine computes."""
        return None if tensor is None else tensor.to(self.device)
