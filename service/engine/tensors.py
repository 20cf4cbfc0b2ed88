"""The tensors of a model as the world knows them: its own, all of them, or merged into plain layers."""

from collections.abc import Mapping

from torch import Tensor

from service.codecs import peft
from service.codecs.message import Arrays
from service.lora.chain import Trainable
from service.lora.names import by_layer, named
from service.lora.spec import AnySpec
from service.models.model import LoadedModel


def own(model: LoadedModel) -> Arrays:
    """The tensors that are the adapter's, by the names of `LoRALinear`."""
    return _arrays(model.adapter)


def all_of(model: LoadedModel) -> Arrays:
    """Those of the bases too, under the names of PEFT."""
    called = {**peft.ALONE, **peft.STARTS}
    adapters = by_layer(own(model), len(model.bases))
    parts = [
        {
            **_arrays({"base.weight": base.weight, "base.bias": base.bias}),
            **{called[name]: array for name, array in peft.parted(adapter, spec.rank).items()},
        }
        for spec, base, adapter in zip(model.spec.layers, model.bases, adapters, strict=True)
    ]
    return named(parts)


def merged(model: LoadedModel) -> Arrays:
    """The weight and the bias of plain layers that do the same."""
    return named([_arrays({"weight": layer.merged(), "bias": layer.whole_bias}) for layer in model.layer.layers])


def whole(adapter: Mapping[str, Tensor], spec: AnySpec, layer: Trainable) -> dict[str, Tensor]:
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
