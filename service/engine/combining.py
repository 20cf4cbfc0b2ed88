"""New models from weighted sums of others: checked against what there is room for, then added up."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.clock import instant
from service.engine.decomposing import FLOAT64_BYTES, Decomposing
from service.engine.making import Maker
from service.errors import Fault, ModelNotFound, NonFinite
from service.lora import combined
from service.lora.change import Change, is_whole
from service.lora.spec import MAX_RANK, Spec, refuse
from service.models.combined import Combined, Member
from service.models.model import LoadedModel, Model
from service.models.registry import Registry

NO_SEED = 0  # nothing of a sum is drawn

Pair = tuple[str, float]  # a model's id, and how much it counts


@dataclass(frozen=True)
class Sum:
    """What is to be added up.

    Args:
        ranks: how many there are when nothing is left out.
        exact: whether nothing is, so that nothing needs to be decomposed.
        whole: whether it is added up as one matrix, not as factors.
    """

    spec: Spec
    ranks: int
    exact: bool
    whole: bool


@dataclass(frozen=True)
class Combiner:
    """Makes models that nobody knows yet, as a `Maker` does."""

    registry: Registry
    maker: Maker
    decomposing: Decomposing

    def one(
        self,
        pairs: Sequence[Pair],
        *,
        base_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> LoadedModel:
        """The model whose change of the weight is the sum of weight · change over models of one base.

        Raises:
            Validation, LimitExceeded, NonFinite, ModelNotFound, CapacityExhausted
            TemporaryReducedCapacity: while another large change is being decomposed.
        """
        known = list(self._each(pairs, self.registry.get))
        must_share_a_base(known, base_id)
        total = summed(known, settings)
        self.maker.must_fit(total.spec.adapter_bytes, "/combine")
        self.registry.must_have_room()
        held = sum({model.id: model.nbytes for model in known}.values())
        with self.maker.budget.held(total.spec.adapter_bytes + held), self._room(total):
            members = [*zip(self._each(pairs, self.registry.loaded), (weight for _, weight in pairs), strict=True)]
            adapter, error, relative_error = added_up(members, total)
        at = instant().wall
        made_of = tuple(Member(model.id, model.version, float(weight)) for model, weight in members)
        return LoadedModel(
            id="",
            base_ids=known[0].base_ids,
            spec=total.spec,
            seed=NO_SEED,
            bases=members[0][0].bases,
            adapter=adapter,
            created_at=at,
            updated_at=at,
            name=name,
            metadata=dict(metadata or {}),
            combined=Combined(made_of, total.ranks, error, relative_error),
        )

    def _each(self, pairs: Sequence[Pair], find: Callable[[str], Any]) -> Iterator[Any]:
        """What is found of each model, once for one that comes again."""
        found: dict[str, Any] = {}
        for place, (model_id, _) in enumerate(pairs):
            try:
                yield found.get(model_id) or found.setdefault(model_id, find(model_id))
            except ModelNotFound as error:
                raise ModelNotFound(error.detail, Fault(f"/combine/{place}/model_id", error.detail)) from None

    def _room(self, total: Sum) -> AbstractContextManager[None]:
        sizes = total.spec.in_features, total.spec.out_features
        if total.exact:
            return self.maker.budget.held(2 * FLOAT64_BYTES * total.ranks * sum(sizes))
        return self.decomposing.allowed(min(sizes) if total.whole else total.ranks, *sizes, "/combine")


def must_share_a_base(models: Sequence[Model], base_id: str | None) -> None:
    """Raise Validation unless the models stand on one base, and on the one that is named."""
    first = models[0]
    for place, model in enumerate(models):
        if model.base_id is None:
            layers = len(model.spec.layers)
            refuse(f"combine/{place}/model_id", f"model {model.id} has {layers} layers; only models of one add up")
        if model.base_id != first.base_id:
            refuse(
                f"combine/{place}/model_id",
                f"model {model.id} stands on {model.base_id}, and model {first.id} on {first.base_id}; "
                "only changes of one base add up",
            )
    if base_id not in (None, first.base_id):
        refuse("base_id", f"base_id is {base_id}; the members stand on {first.base_id}, so leave it out")


def summed(models: Sequence[Model], settings: Mapping[str, Any]) -> Sum:
    """The sum of these models' changes, under what may be asked of it: `rank`, `dropout` and the sizes it has.

    Raises:
        Validation, LimitExceeded
    """
    base, asked = models[0].spec.layers[0], settings.get("rank")
    sizes, narrow = (base.in_features, base.out_features), base.narrow
    stacked = sum(model.spec.rank + model.spec.frozen_rank for model in models)
    dora = next((model for model in models if model.spec.use_dora), None)
    must_have_the_sizes(base, settings)
    if dora is not None and asked is None:
        detail = f"model {dora.id} has use_dora true, so the sum is not of low rank; give the rank it is to have"
        refuse("rank", f"rank is required: {detail}")
    spec = spec_of_sum(models, min(stacked, narrow, MAX_RANK) if asked is None else asked, settings.get("dropout", 0.0))
    if dora is not None:
        return Sum(spec, narrow, exact=False, whole=True)
    if spec.rank > stacked:
        refuse("rank", f"rank is {asked}; the members have {stacked} ranks together, and the sum needs no more")
    return Sum(spec, stacked, exact=spec.rank == stacked, whole=is_whole(stacked, *sizes))


def spec_of_sum(models: Sequence[Model], rank: int, dropout: float) -> Spec:
    """The spec of a sum: its scaling is 1, and it trains a bias of its own where one of the members does."""
    base = models[0].spec.layers[0]
    train_bias = any(model.spec.train_bias for model in models)
    return Spec(
        in_features=base.in_features,
        out_features=base.out_features,
        rank=rank,
        dropout=dropout,
        bias=base.bias,
        train_bias=train_bias,
    )


def must_have_the_sizes(spec: Spec, settings: Mapping[str, Any]) -> None:
    """Raise Validation where a size is given that the members do not have."""
    for name in ("in_features", "out_features"):
        if settings.get(name) not in (None, getattr(spec, name)):
            refuse(name, f"{name} is {settings[name]}; the members have {getattr(spec, name)}, so leave it out")


def added_up(members: Sequence[tuple[LoadedModel, float]], total: Sum) -> tuple[dict[str, Tensor], float, float]:
    """The tensors of the sum, what was left out of it, and that over all of it."""
    changes = (_within_float32(Change.of(model.layer.layers[0], weight)) for model, weight in members)
    if total.exact:
        kept, error, relative_error = combined.stacked(changes), 0.0, 0.0
    else:
        add = combined.added if total.whole else combined.stacked
        kept, error, relative_error = combined.compressed(add(changes), total.spec.rank)
    tensors: dict[str, Any] = {"A": kept.A, "B": kept.B}
    bias = members[0][0].base.bias
    if total.spec.train_bias and bias is not None:
        own = [(model.adapter["own_bias"], weight) for model, weight in members if model.spec.train_bias]
        tensors["own_bias"] = combined.own_bias(bias, own)
    return {name: single(tensor) for name, tensor in tensors.items()}, error, relative_error


def single(tensor: Tensor) -> Tensor:
    """The tensor in float32.

    Raises:
        NonFinite: when that cannot hold it.
    """
    rounded = tensor.float().contiguous()
    if not torch.isfinite(rounded).all():
        detail = "the sum has numbers beyond those of float32; give the members smaller weights"
        raise NonFinite(detail, Fault("/combine", detail))
    return rounded


def _within_float32(change: Change) -> Change:
    single(change.A)
    return change
