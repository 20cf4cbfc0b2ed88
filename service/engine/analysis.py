"""What is to be seen in a model: the directions and the size of its change, and how near it is to another."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from service.engine.decomposing import Decomposing
from service.errors import Fault, ModelNotFound
from service.lora import analysis
from service.lora.change import Change
from service.lora.spec import Spec, refuse
from service.models.model import LoadedModel, Model
from service.models.registry import Registry


@dataclass(frozen=True)
class Heatmap:
    """A matrix of some shape, as the means of its blocks."""

    shape: tuple[int, int]
    values: list[list[float]]

    @classmethod
    def of(cls, shape: Sequence[int], picture: Tensor) -> "Heatmap":
        """The means in a picture, and the shape of what it shows."""
        return cls((shape[0], shape[1]), picture.tolist())


@dataclass(frozen=True)
class Overlap:
    """How near a model's change is to that of another; None where one of them changes nothing."""

    model_id: str
    version: int
    cosine: float | None
    input: float | None
    output: float | None


@dataclass(frozen=True)
class Analysis:
    """What a change is like: its singular values and what follows from them, its norms, and pictures of it."""

    singular_values: list[float]
    effective_rank: float
    stable_rank: float
    energy: list[float] | None
    norm: float
    base_norm: float
    relative_norm: float | None
    heatmaps: dict[str, Heatmap]
    overlap: Overlap | None


@dataclass(frozen=True)
class Analyst:
    """Looks at models, large ones one at a time."""

    registry: Registry
    decomposing: Decomposing

    def analysed(self, model_id: str, other_id: str | None = None, place: int = 0) -> tuple[LoadedModel, Analysis]:
        """The model, and what is to be seen in the layer at a place, also beside that of another on its base.

        Raises:
            ModelNotFound, Validation, LimitExceeded, CapacityExhausted
            TemporaryReducedCapacity: while another large change is being decomposed.
        """
        model = self.registry.get(model_id)
        if place >= len(model.spec.layers):
            refuse("layer", f"layer is {place}; model {model_id} has {len(model.spec.layers)}, and the first is 0")
        beside = None if other_id is None else self._on_the_same_base(model, other_id, place)
        seen = [model] if beside is None else [model, beside]
        ranks = max(ranks_of(each.spec.layers[place]) for each in seen)
        sizes = model.spec.layers[place].in_features, model.spec.layers[place].out_features
        with self.decomposing.allowed(ranks, *sizes, "" if beside is None else "/with", len(seen)):
            loaded = self.registry.loaded(model_id)
            return loaded, analysis_of(loaded, None if beside is None else self.registry.loaded(beside.id), place)

    def _on_the_same_base(self, model: Model, other_id: str, place: int) -> Model:
        """The other model, which must stand on the base of this one."""
        try:
            other = self.registry.get(other_id)
        except ModelNotFound as error:
            raise ModelNotFound(error.detail, Fault("/with", error.detail)) from None
        its, own = (each.base_ids[place] if place < len(each.base_ids) else None for each in (other, model))
        if its != own:
            detail = f"model {other.id} stands on {its} there, and model {model.id} on {own}"
            refuse("with", f"{detail}; only changes of one base are compared")
        return other


def ranks_of(spec: Spec) -> int:
    """How many ranks the change of such a model is decomposed at: as a matrix it has as many as its shorter side."""
    return spec.narrow if spec.use_dora else spec.rank + spec.frozen_rank


def analysis_of(model: LoadedModel, other: LoadedModel | None = None, place: int = 0) -> Analysis:
    """What is to be seen in a layer of a model, also beside that of another on its base."""
    layer = model.layer.layers[place]
    change = Change.of(layer)
    overlap, values = (None, change.values()) if other is None else _overlap(change, other, place)
    norm, base_norm = float(values.norm()), analysis.norm(layer.weight)
    return Analysis(
        singular_values=values.tolist(),
        effective_rank=analysis.effective_rank(values),
        stable_rank=analysis.stable_rank(values),
        energy=analysis.energy(values),
        norm=norm,
        base_norm=base_norm,
        relative_norm=norm / base_norm if base_norm else None,
        heatmaps={
            "A": Heatmap.of(layer.A.shape, analysis.pooled(layer.A.double())),
            "B": Heatmap.of(layer.B.shape, analysis.pooled(layer.B.double())),
            "delta": Heatmap.of(layer.weight.shape, analysis.pooled_change(change)),
        },
        overlap=overlap,
    )


def _overlap(change: Change, other: LoadedModel, place: int) -> tuple[Overlap, Tensor]:
    """How near a change is to that of another model, and its singular values."""
    others = Change.of(other.layer.layers[place])
    one, two = change.svd(), others.svd()
    cosine = analysis.cosine(change, others, (float(one[1].norm()), float(two[1].norm())))
    inputs, outputs = analysis.subspaces(one, two)
    return Overlap(other.id, other.version, cosine, inputs, outputs), one[1]
