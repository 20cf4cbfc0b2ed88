"""Adapters as they come and go: brought from outside, gone back to, and taken away as named tensors."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.clock import instant
from service.codecs import peft
from service.codecs.message import Arrays
from service.engine.trainings import Trainings
from service.lora.chain import Trainable
from service.lora.names import by_layer, named
from service.lora.spec import AnySpec
from service.models.budget import Budget
from service.models.model import LoadedModel, Model
from service.models.registry import Registry
from service.models.store import Change

Check = Callable[[Model], None]


@dataclass(frozen=True)
class Adapters:
    """The adapters of the registry's models. One that is brought is published as the next version."""

    registry: Registry
    trainings: Trainings
    budget: Budget
    device: str

    def adopt(self, model_id: str, adapter: Arrays, check: Check = lambda model: None) -> Model:
        """Publish an adapter that comes from outside as the model's next version; the new model.

        Args:
            adapter: the tensors that `peft.loaded` gives; without the model's frozen ranks these stay what they are.
            check: raises where the model is not to be changed as it is now.

        Raises:
            ModelNotFound
            ModelBusy: while a job is active, which would publish over it.
        """
        placed = {name: torch.from_numpy(np.array(array)).to(self.device) for name, array in adapter.items()}
        with self.trainings.turn():
            model = self.registry.get(model_id)
            check(model)
            self.trainings.must_be_idle(model_id, "cancel it, or wait until it has ended")
            if model.spec.frozen_rank:
                placed = _whole(placed, model.spec, self.registry.loaded(model_id).layer)
            return self.registry.publish(model_id, placed, lambda model: model.next(instant().wall, "import"))

    def roll_back(
        self,
        model_id: str,
        number: int | None = None,
        check: Check = lambda model: None,
        also: Callable[[Model], Iterable[Change]] = lambda model: (),
    ) -> Model:
        """Publish the weights of an earlier version as the model's next one; the new model.

        Args:
            number: of the version; by default the newest that is kept before the current one.
            check: raises where the model is not to be changed as it is now.
            also: what is to be stored together with that.

        Raises:
            ModelNotFound, VersionNotFound
            ModelBusy: while a job is active, which would publish over it.
            TemporaryReducedCapacity: when there is no memory to read them.
        """
        with self.trainings.turn():
            model = self.registry.get(model_id)
            check(model)
            self.trainings.must_be_idle(model_id, "cancel it, or wait until it has ended")
            number = model.before.number if number is None else number
            with self.registry.version(model_id, number) as (version, adapter):
                return self.registry.publish(
                    model_id, adapter, lambda now: now.rolled_back(instant().wall, version), also
                )

    def own(self, model_id: str, number: int | None = None) -> tuple[LoadedModel, Arrays]:
        """The model, now or at an earlier version, and the tensors that are its own, by the names of `LoRALinear`.

        Raises:
            ModelNotFound, VersionNotFound
        """
        model = self.registry.loaded(model_id, number)
        return model, _arrays(model.adapter)

    def merged(self, model_id: str, number: int | None = None) -> tuple[LoadedModel, Arrays]:
        """The model, now or at an earlier version, and the weight and bias of plain layers that do the same.

        Raises:
            ModelNotFound, VersionNotFound, CapacityExhausted
        """
        model = self.registry.loaded(model_id, number)
        with self.budget.held(2 * model.spec.base_bytes):
            return model, _merged(model)

    def weights(self, model_id: str, number: int | None = None) -> tuple[LoadedModel, Arrays]:
        """The model, now or at an earlier version, and all its tensors under the names of PEFT.

        Raises:
            ModelNotFound, VersionNotFound
        """
        model = self.registry.loaded(model_id, number)
        return model, _all_of(model)


def _all_of(model: LoadedModel) -> Arrays:
    """Those of the bases too, under the names of PEFT."""
    called = {**peft.ALONE, **peft.STARTS}
    adapters = by_layer(_arrays(model.adapter), len(model.bases))
    parts = [
        {
            **_arrays({"base.weight": base.weight, "base.bias": base.bias}),
            **{called[name]: array for name, array in peft.parted(adapter, spec.rank).items()},
        }
        for spec, base, adapter in zip(model.spec.layers, model.bases, adapters, strict=True)
    ]
    return named(parts)


def _merged(model: LoadedModel) -> Arrays:
    """The weight and the bias of plain layers that do the same."""
    return named([_arrays({"weight": layer.merged(), "bias": layer.whole_bias}) for layer in model.layer.layers])


def _whole(adapter: Mapping[str, Tensor], spec: AnySpec, layer: Trainable) -> dict[str, Tensor]:
    """An adapter that comes without some layers' frozen ranks, with those that the layers have."""
    parts = by_layer(adapter, len(spec.layers))
    return named(
        [
            each.learned(part).adapter() if len(part["A"]) == each.rank else part
            for each, part in zip(layer.layers, parts, strict=True)
        ]
    )


def _arrays(tensors: Mapping[str, Tensor | None]) -> Arrays:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items() if tensor is not None}
