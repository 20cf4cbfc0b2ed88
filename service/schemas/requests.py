"""What is sent to the service: nothing is converted, and nothing unknown is ignored."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from service.codecs.json import classes, numbers
from service.lora.spec import MAX_LAYERS, USUAL_RANK, Alpha, Dropout, Features, Rank, Seed, refuse
from service.schemas.choices import Activation, Init, Loss, Optimizer, Schedule, Split
from service.schemas.fields import NESTED_NUMBERS, BaseId, DatasetId, JobId, Metadata, ModelId, Number, Text
from service.training import plan, sources
from service.training.plan import (
    Beta,
    Epochs,
    Fraction,
    LearningRate,
    Patience,
    Positive,
)
from service.training.sources import NotNegative, Samples

MAX_ITEMS = 1_024  # of a forward for many models
MAX_COMBINED = 64  # members of a sum
RANK = f"r, at most min(in_features, out_features); default: {USUAL_RANK}, or that where it is less"


class Request(BaseModel):
    """A body that is sent to the service: nothing is converted, nothing unknown is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class CombineMember(Request):
    """A model in a sum of models."""

    model_id: ModelId
    weight: float = Field(1.0, description="how much its change of the weight counts")


class LayerRequest(Request):
    """One layer of several. The two sizes are required unless `base_id` names a base that has them."""

    in_features: Features | None = Field(None, description="inputs of the frozen layer: the outputs of the one before")
    out_features: Features | None = Field(None, description="outputs of the frozen layer")
    base_id: BaseId | None = Field(None, description="adapt this base instead of a fresh one")
    rank: Rank | None = Field(None, description=RANK)
    alpha: Alpha | None = Field(None, description="scaling = alpha / rank; default: the rank, so scaling is 1")
    activation: Activation = Field("identity", description="between this layer and the next; not after the last")


class CreateModelRequest(Request):
    """A new LoRA layer. Its two sizes are required unless `base_id`, `layers` or `combine` tell them.

    Of several layers, each has its sizes or base, rank and alpha for itself; the other settings are shared.
    """

    in_features: Features | None = Field(None, description="inputs of the frozen layer")
    out_features: Features | None = Field(None, description="outputs of the frozen layer")
    base_id: BaseId | None = Field(None, description="adapt this base instead of a fresh one")
    rank: Rank | None = Field(None, description=RANK)
    alpha: Alpha | None = Field(None, description="scaling = alpha / rank; default: the rank, so scaling is 1")
    use_rslora: bool = Field(False, description="scaling = alpha / √rank")
    use_dora: bool = Field(False, description="DoRA: the lengths of the weight's rows are trained by themselves")
    init: Init = Field(
        "kaiming",
        description="how A and B begin. kaiming, gaussian: A drawn, B zero, and orthogonal: both drawn, their product "
        "zero, change no output, nor do pissa and olora, which hold a part of the base; normal: A and B N(0, 1)",
    )
    dropout: Dropout = Field(0.0, description="on the adapter's input, in training only")
    bias: bool = Field(True, description="the fresh base has a bias")
    train_bias: bool = Field(False, description="the adapter trains a copy of the bias of its own")
    seed: Seed | None = Field(None, description="of the fresh base and of A and B; drawn when left out")
    name: Text | None = Field(None, description="free text")
    metadata: Metadata | None = Field(None, description="up to 16 pairs of text")
    layers: Annotated[list[LayerRequest], Len(2, MAX_LAYERS)] | None = Field(
        None, description="several layers one after another, trained and run as one model"
    )
    combine: Annotated[list[CombineMember], Len(1, MAX_COMBINED)] | None = Field(
        None,
        description="models on one base, whose changes of the weight are added up: Σ weight·ΔW. Beside it may go rank "
        "(to compress the sum; required where a member has use_dora), dropout, name and metadata",
    )


class UpdateModelRequest(Request):
    """What may be changed of a model without training it; what is left out stays."""

    name: Text | None = Field(None, description="free text; null removes it")
    metadata: Metadata | None = Field(None, description="replaces all pairs; null removes them")


def _numbers(name: str) -> PlainValidator:
    return PlainValidator(lambda value: numbers(value, name))


def _targets(name: str) -> PlainValidator:
    def read(value: Any) -> Any:
        flat = isinstance(value, list) and value and not isinstance(value[0], list)
        return classes(value, name) if flat else numbers(value, name)

    return PlainValidator(read)


NESTED = WithJsonSchema(NESTED_NUMBERS)
X, Y = "inputs (n, in_features)", "targets (n, out_features), or one integer class per row"
WEIGHT = "how much each row counts (n,); a loss is the weighted mean over the rows"


Find = Callable[[str], sources.Stored]  # an uploaded data set by its id


class RandomData(Request):
    """Inputs and targets N(0, 1)."""

    kind: Literal["random"]
    n_samples: Samples = 1_000
    seed: Seed | None = Field(None, description="of the rows; default: the job's seed")

    def described(self, find: Find) -> sources.Source:
        return sources.Random(n_samples=self.n_samples, seed=self.seed)


class TeacherData(Request):
    """Inputs N(0, 1); targets from this base under a hidden change of rank `teacher_rank`, plus noise."""

    kind: Literal["teacher"]
    n_samples: Samples = 1_000
    teacher_rank: Rank | None = Field(None, description="default: the model's rank")
    noise: NotNegative = Field(0.0, description="standard deviation of what is added to the targets")
    seed: Seed | None = Field(None, description="of the rows and the change; default: the job's seed")
    held_out: bool = Field(False, description="other rows of the seed's, under the same change")

    def described(self, find: Find) -> sources.Source:
        return sources.Teacher(**self.model_dump(exclude={"kind"}))


class DigitsData(Request):
    """The UCI optical handwritten digits: 1,797 rows of 64 values from 0 to 1, ten classes."""

    kind: Literal["digits"]
    split: Split = Field("train", description="train: 1,437 rows; test: the other 360; all")

    def described(self, find: Find) -> sources.Source:
        return sources.Digits(split=self.split)


class InlineData(Request):
    """Rows in the request itself."""

    within: ClassVar[str] = "data"

    kind: Literal["inline"]
    x: Annotated[Any, _numbers("data.x"), NESTED] = Field(description=X)
    y: Annotated[Any, _targets("data.y"), NESTED] = Field(description=Y)
    weight: Annotated[Any, _numbers("data.weight"), NESTED] | None = Field(None, description=WEIGHT)

    def described(self, find: Find) -> sources.Source:
        if not len(self.x):
            refuse(f"{self.within}/x", f"{self.within}.x has no rows; at least one is needed")
        weighted = self.weight is not None
        return sources.Inline(n_samples=len(self.x), targets=sources.targets_of(self.y), weighted=weighted)


class InlineValidation(InlineData):
    """Rows to validate on, in the request itself."""

    within: ClassVar[str] = "validation"

    x: Annotated[Any, _numbers("validation.x"), NESTED] = Field(description=X)
    y: Annotated[Any, _targets("validation.y"), NESTED] = Field(description=Y)
    weight: Annotated[Any, _numbers("validation.weight"), NESTED] | None = Field(None, description=WEIGHT)


class DatasetData(Request):
    """An uploaded data set, as it is when the job is accepted."""

    kind: Literal["dataset"]
    id: DatasetId

    def described(self, find: Find) -> sources.Source:
        return find(self.id)


DATA: dict[str, type[RandomData | TeacherData | DigitsData | InlineData | DatasetData]] = {
    "random": RandomData,
    "teacher": TeacherData,
    "digits": DigitsData,
    "inline": InlineData,
    "dataset": DatasetData,
}


def inline_rows(**sources: Any) -> dict[str, Any]:
    """The arrays of those sources that are inline, each under its source's name and its own."""
    return {
        f"{within}.{name}": getattr(source, name)
        for within, source in sources.items()
        if isinstance(source, InlineData)
        for name in ("x", "y", "weight")
        if getattr(source, name) is not None
    }


AnyData = Annotated[RandomData | TeacherData | DigitsData | InlineData | DatasetData, Field(discriminator="kind")]
FRACTION = "fraction"


def _kind_of_validation(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("kind")
    return getattr(value, "kind", FRACTION)


AnyValidation = Annotated[
    Annotated[Fraction, Tag(FRACTION)]
    | Annotated[RandomData, Tag("random")]
    | Annotated[TeacherData, Tag("teacher")]
    | Annotated[DigitsData, Tag("digits")]
    | Annotated[InlineValidation, Tag("inline")]
    | Annotated[DatasetData, Tag("dataset")],
    Discriminator(_kind_of_validation),
]


class EarlyStopping(Request):
    """Stop when the validation loss (without validation, the training loss) no longer falls, and keep the best."""

    patience: Patience = Field(description="epochs in a row without a loss that is better")
    min_delta: NotNegative = Field(0.0, description="how far below the best a better loss is")


class TrainRequest(Request):
    """One training run. Every field is optional; no body at all means all defaults."""

    epochs: Epochs = Field(10, description="passes over the data; closed_form takes 1")
    lr: LearningRate = Field(0.01, description="learning rate")
    optimizer: Optimizer = Field("adam", description="closed_form solves full-batch mse in one step")
    betas: Annotated[list[Beta], Len(2, 2)] | None = Field(None, description="of adam and adamw; default 0.9, 0.999")
    eps: NotNegative | None = Field(None, description="of adam and adamw; default 1e-8")
    momentum: Beta | None = Field(None, description="of sgd; default 0")
    weight_decay: NotNegative | None = Field(None, description="default 0, for adamw 0.01")
    schedule: Schedule = Field("constant", description="how lr goes after the warmup")
    warmup_epochs: NotNegative = Field(0.0, description="epochs over which lr rises")
    max_grad_norm: Positive | None = Field(None, description="the gradient's norm is clipped to this; default: not")
    lr_b_ratio: Positive = Field(1.0, description="lr of B over lr of A (LoRA+)")
    loss: Loss = "mse"
    batch_size: Samples | None = Field(None, description="null: one full batch per epoch; else shuffled minibatches")
    seed: Seed | None = Field(None, description="of data, order and dropout; drawn when left out")
    data: AnyData = Field(default_factory=partial(RandomData, kind="random"), description="default: random rows")
    validation: AnyValidation | None = Field(
        None, description="a fraction of the data that is held out, or data of its own"
    )
    early_stopping: EarlyStopping | None = Field(None, description="when to stop before the last epoch")
    continue_from: JobId | None = Field(
        None,
        description="go on where this job of the model ended, with its optimizer's state; what is not given is its own",
    )

    def plan(self, find: Find, earlier: Callable[[str], plan.Plan] | None = None) -> plan.Plan:
        """The plan that this asks for, on data sets that `find` knows, and after a job whose plan `earlier` knows."""
        # Only what was asked for: a setting that an optimizer does not have has a default here all the same.
        settings: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if self.continue_from is not None and earlier is not None:
            settings = {**_inherited(earlier(self.continue_from), settings), **settings}
        if "data" in self.model_fields_set or "data" not in settings:
            settings["data"] = self.data.described(find)
        if self.betas is not None:
            settings["betas"] = tuple(self.betas)
        if isinstance(self.validation, Request):
            settings["validation"] = self.validation.described(find)
        if self.early_stopping is not None:
            settings["early_stopping"] = plan.EarlyStopping(**self.early_stopping.model_dump())
        return plan.Plan(**settings)

    def rows(self) -> dict[str, Any]:
        """The rows of inline data, as `data.x`, `data.y`, `validation.x` …."""
        return inline_rows(data=self.data, validation=self.validation)


def _inherited(earlier: plan.Plan, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of an earlier plan that a later one goes on with.

    Raises:
        Validation: for another optimizer, or rows that came with the earlier request and are gone.
    """
    if given.get("optimizer", earlier.optimizer) != earlier.optimizer:
        refuse(
            "optimizer", f"optimizer is {given['optimizer']}; the job to continue from has that of {earlier.optimizer}"
        )
    if given.get("seed", earlier.seed) != earlier.seed:
        refuse("seed", f"seed is {given['seed']}; the job to continue from goes on with the draws of {earlier.seed}")
    for name in ("data", "validation"):
        if isinstance(getattr(earlier, name), sources.Inline) and name not in given:
            refuse(name, f"{name} was sent with the job to continue from and is not kept; send it again")
    return {name: value for name, value in vars(earlier).items() if name not in ("path", "continue_from")}


class RankProfileRequest(Request):
    """The data that the ranks are compared on."""

    data: AnyData = Field(default_factory=partial(RandomData, kind="random"), description="default: random rows")

    def rows(self) -> dict[str, Any]:
        """The rows of inline data, as `data.x`, `data.y`, `data.weight`."""
        return inline_rows(data=self.data)


class RollbackRequest(Request):
    """Which version to go back to."""

    version: Number | None = Field(None, description="default: the newest that is kept before the current one")


class ForwardRequest(Request):
    """Inputs of shape (…, in_features): one row, a batch, or more leading dimensions."""

    inputs: Annotated[Any, WithJsonSchema(NESTED_NUMBERS)]


class MixedItem(Request):
    """Inputs for one of several models."""

    model_id: ModelId
    inputs: Annotated[Any, WithJsonSchema(NESTED_NUMBERS)]


class MixedForwardRequest(Request):
    """Inputs for many models; a model may come more than once."""

    items: Annotated[list[MixedItem], Len(1, MAX_ITEMS)]
