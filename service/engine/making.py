"""New models from their settings: checked against what there is room for, then drawn."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from service.clock import instant
from service.engine.capacity import Capacity
from service.engine.settled import SEEDS
from service.errors import Fault, LimitExceeded, Validation
from service.lora import init
from service.lora.layer import LoRALinear
from service.lora.names import named
from service.lora.spec import MAX_SEED, AnySpec, ChainSpec, Spec
from service.models.base import Base
from service.models.budget import Budget
from service.models.model import LoadedModel
from service.models.registry import Registry

BEYOND_SEEDS = MAX_SEED + 1
NOTES = ("name", "metadata")
WORKING_COPIES = 4  # matrices as large as the base that are there at once while a start looks at it


@dataclass(frozen=True)
class Maker:
    """Makes models that nobody knows yet: the registry gives them their ids when it takes them in."""

    registry: Registry
    budget: Budget
    capacity: Capacity
    device: str

    def one(
        self, base: Base | None = None, *, seed: int | None = None, base_seed: int | None = None, **settings: Any
    ) -> LoadedModel:
        """A model on a base, or on a fresh one that begins from `seed` too, unless it has a seed of its own.

        Args:
            settings: those of `Spec`, and `name` and `metadata`.

        Raises:
            Validation, ShapeMismatch, LimitExceeded, CapacityExhausted
        """
        notes, settings = _apart(settings)
        spec = Spec(**settings) if base is None else base.spec(settings)
        return self._made(spec, [base], seed, base_seed, notes)

    def chain(
        self, layers: Sequence[Mapping[str, Any]], bases: Sequence[Base | None], seed: int | None = None, **common: Any
    ) -> LoadedModel:
        """A model of several layers, each on a base or a fresh one.

        Args:
            layers: the settings of each that are its own, and the `activation` after it.
            common: those of `Spec` that they share, and `name` and `metadata`.

        Raises:
            Validation, ShapeMismatch, LimitExceeded, CapacityExhausted
        """
        notes, common = _apart(common)
        specs, activations = [], []
        for place, (layer, base) in enumerate(zip(layers, bases, strict=True)):
            own = {name: value for name, value in {**common, **layer}.items() if name != "base_id"}
            activations.append(own.pop("activation", "identity"))
            try:
                specs.append(Spec(**own) if base is None else base.spec(own))
            except Validation as error:
                raise error.moved(partial(_place_of, place, common)) from None
        spec = ChainSpec(layers=tuple(specs), activations=tuple(activations[:-1]))
        return self._made(spec, bases, seed, None, notes)

    def _made(
        self,
        spec: AnySpec,
        bases: Sequence[Base | None],
        seed: int | None,
        base_seed: int | None,
        notes: Mapping[str, Any],
    ) -> LoadedModel:
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        new = [layer.base_bytes for layer, base in zip(spec.layers, bases, strict=True) if base is None]
        needed = spec.adapter_bytes + sum(new)
        self.must_fit(needed, "/in_features" if len(spec.layers) == 1 else "/layers")
        self.registry.must_have_room()
        looks = bool(spec.frozen_rank or spec.use_dora)
        working = WORKING_COPIES * max(layer.base_bytes for layer in spec.layers) * looks
        with self.budget.held(needed + working):
            layers = [
                self._begun(layer, base, (seed + place) % BEYOND_SEEDS, base_seed)
                for place, (layer, base) in enumerate(zip(spec.layers, bases, strict=True))
            ]
        at = instant().wall
        return LoadedModel(
            id="",
            base_ids=tuple(base.id for base, _ in layers),
            spec=spec,
            seed=seed,
            bases=tuple(base for base, _ in layers),
            adapter=named([layer.adapter() for _, layer in layers]),
            created_at=at,
            updated_at=at,
            name=notes.get("name"),
            metadata=dict(notes.get("metadata") or {}),
        )

    def _begun(self, spec: Spec, base: Base | None, seed: int, base_seed: int | None) -> tuple[Base, LoRALinear]:
        """A layer as it begins, and what it stands on; each layer of a chain has a seed of its own, one apart."""
        base = base or self._fresh(spec, seed if base_seed is None else base_seed)
        return base, init.begun(spec, seed, base.weight, base.bias)

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


def _apart(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is noted of a model, and what its layers are to be."""
    notes = {name: settings[name] for name in NOTES if name in settings}
    return notes, {name: value for name, value in settings.items() if name not in NOTES}


def _place_of(place: int, common: Mapping[str, Any], pointer: str) -> str:
    """Where a fault of a layer is: with the layer, or with what they all share."""
    return pointer if pointer[1:] in common else f"/layers/{place}{pointer}"
