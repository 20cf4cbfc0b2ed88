"""What a LoRA layer is to be: its sizes, how it begins, and what follows from them. Imports no torch."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from service import bounds
from service.errors import Fault, Validation

MAX_FEATURES = 65_536
MAX_RANK = 1_024
USUAL_RANK = 4
MAX_SETTING = 1_000_000
MAX_SEED = 2**53 - 1
MAX_LAYERS = 16

Features = Annotated[int, Ge(1), Le(MAX_FEATURES)]
Rank = Annotated[int, Ge(1), Le(MAX_RANK)]
Alpha = Annotated[float, Gt(0), Le(MAX_SETTING)]
Dropout = Annotated[float, Ge(0), Lt(1)]
Activation = Literal["identity", "relu", "gelu", "tanh", "silu"]
Init = Literal["kaiming", "normal", "gaussian", "orthogonal", "pissa", "olora"]
Seed = Annotated[int, Ge(0), Le(MAX_SEED)]  # every JSON reader holds these exactly

# Starts that hold a part of the base, which a frozen half of the adapter takes from it.
ON_THE_BASE = frozenset({"pissa", "olora"})

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model has, and how many of them training may change."""

    trainable: int
    frozen: int

    @property
    def total(self) -> int:
        return self.trainable + self.frozen

    @property
    def trainable_percent(self) -> float:
        return round(100 * self.trainable / self.total, 2)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A LoRA layer's sizes and settings.

    `rank` None becomes 4, or the smaller of the sizes where that is less, and `alpha` None the rank: the scaling is 1.

    Raises:
        Validation, LimitExceeded, NonFinite: for a value out of its bounds, or two that do not go together.
    """

    in_features: Features
    out_features: Features
    rank: Rank = None  # type: ignore[assignment]  # None is what it is given as
    alpha: Alpha | None = None
    use_rslora: bool = False
    use_dora: bool = False
    init: Init = "kaiming"
    dropout: Dropout = 0.0
    bias: bool = True
    train_bias: bool = False

    def __post_init__(self) -> None:
        bounds.check(self)
        given: Any = self.rank
        if given is None:
            object.__setattr__(self, "rank", min(USUAL_RANK, self.narrow))
        if self.rank > self.narrow:
            refuse("rank", f"rank is {self.rank}; it is at most min(in_features, out_features) = {self.narrow}")
        if self.init == "orthogonal" and self.rank % 2:
            refuse("rank", f"rank is {self.rank}; the init orthogonal needs an even one, half for A and half for B")
        if self.train_bias and not self.bias:
            refuse("train_bias", "train_bias is true; it needs a base that has a bias, and bias is false")
        object.__setattr__(self, "alpha", float(self.rank if self.alpha is None else self.alpha))

    @property
    def layers(self) -> "tuple[Spec, ...]":
        """Itself, as the one layer there is."""
        return (self,)

    @property
    def activations(self) -> tuple[Activation, ...]:
        """Those between its layers: none."""
        return ()

    @property
    def narrow(self) -> int:
        """The most ranks that a change of the weight can have."""
        return min(self.in_features, self.out_features)

    @property
    def scaling(self) -> float:
        """What the low-rank product is multiplied by: alpha/r, or alpha/√r (rsLoRA, arXiv:2312.03732)."""
        alpha: Any = self.alpha
        return float(alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank))

    @property
    def base_numbers(self) -> int:
        """Numbers in the frozen layer."""
        return self.out_features * self.in_features + self.out_features * self.bias

    @property
    def frozen_rank(self) -> int:
        """How many ranks the adapter has beside those that are trained."""
        return self.rank if self.init in ON_THE_BASE else 0

    @property
    def adapter_numbers(self) -> int:
        """Numbers that are trained: A, B, the magnitude of DoRA, and the adapter's own bias when that is trained."""
        own = self.out_features * (self.train_bias + self.use_dora)
        return self.rank * (self.in_features + self.out_features) + own

    @property
    def parameters(self) -> Parameters:
        """Counts as a user of `requires_grad` sees them: a trained bias counts once, as trainable."""
        replaced = self.out_features * self.train_bias
        return Parameters(trainable=self.adapter_numbers, frozen=self.base_numbers - replaced)

    @property
    def base_bytes(self) -> int:
        return FLOAT32_BYTES * self.base_numbers

    @property
    def adapter_bytes(self) -> int:
        """What the adapter takes in memory, with its frozen ranks, and with what DoRA stretches outputs by."""
        held = self.frozen_rank * (self.in_features + self.out_features) + self.out_features * self.use_dora
        return FLOAT32_BYTES * (self.adapter_numbers + held)


# What the layers of a chain have in common, since PEFT knows one value for all.
SHARED = ("use_rslora", "use_dora", "init", "dropout", "train_bias")


@dataclass(frozen=True, kw_only=True)
class ChainSpec:
    """Layers one after another, with an activation between each two; the counts are those of all.

    Raises:
        Validation: where one layer does not take what the one before gives, or they differ in what they share.
    """

    layers: tuple[Spec, ...]
    activations: tuple[Activation, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.layers) <= MAX_LAYERS:
            refuse("layers", f"there are {len(self.layers)} layers; a chain has 2 to {MAX_LAYERS}")
        for place, (before, layer) in enumerate(zip(self.layers, self.layers[1:], strict=False), start=1):
            if layer.in_features != before.out_features:
                given = f"in_features is {layer.in_features}; the layer before has out_features {before.out_features}"
                refuse(f"layers/{place}/in_features", given)
            for name in SHARED:
                if getattr(layer, name) != getattr(before, name):
                    refuse(name, f"the layers of a chain have one {name}, so give it beside them")

    @property
    def in_features(self) -> int:
        return self.layers[0].in_features

    @property
    def out_features(self) -> int:
        return self.layers[-1].out_features

    @property
    def rank(self) -> int:
        """The least of all, which a hidden change may have in each layer."""
        return min(layer.rank for layer in self.layers)

    @property
    def narrow(self) -> int:
        return min(layer.narrow for layer in self.layers)

    @property
    def use_dora(self) -> bool:
        return self.layers[0].use_dora

    @property
    def train_bias(self) -> bool:
        return self.layers[0].train_bias

    @property
    def dropout(self) -> float:
        return self.layers[0].dropout

    @property
    def frozen_rank(self) -> int:
        """Of the first layer; where it is 0, it is 0 of all."""
        return self.layers[0].frozen_rank

    @property
    def base_numbers(self) -> int:
        return sum(layer.base_numbers for layer in self.layers)

    @property
    def adapter_numbers(self) -> int:
        return sum(layer.adapter_numbers for layer in self.layers)

    @property
    def parameters(self) -> Parameters:
        counts = [layer.parameters for layer in self.layers]
        return Parameters(sum(count.trainable for count in counts), sum(count.frozen for count in counts))

    @property
    def base_bytes(self) -> int:
        return sum(layer.base_bytes for layer in self.layers)

    @property
    def adapter_bytes(self) -> int:
        return sum(layer.adapter_bytes for layer in self.layers)


AnySpec = Spec | ChainSpec


def spec_of(facts: dict[str, Any]) -> AnySpec:
    """The spec whose fields these are, those of layers within it as well."""
    if "layers" not in facts:
        return Spec(**facts)
    return ChainSpec(layers=tuple(Spec(**each) for each in facts["layers"]), activations=tuple(facts["activations"]))


def refuse(field: str, detail: str) -> None:
    """Raise Validation with a pointer to the field."""
    raise Validation(detail, Fault(f"/{field}", detail))
