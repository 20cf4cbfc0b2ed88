"""What is sent to the service: nothing is converted, and nothing unknown is ignored."""

from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from service.codecs.json import classes, numbers
from service.lora.spec import Alpha, Dropout, Features, Init, Rank, Seed, refuse
from service.schemas.fields import NESTED_NUMBERS, BaseId, Metadata, Text
from service.training import digits, plan
from service.training.plan import Beta, Epochs, LearningRate, LossName, NotNegative, OptimizerName, Samples


class Request(BaseModel):
    """A body that is sent to the service: nothing is converted, nothing unknown is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class CreateModelRequest(Request):
    """A new LoRA layer. The two sizes are required unless `base_id` names a base that has them."""

    in_features: Features | None = Field(None, description="inputs of the frozen layer")
    out_features: Features | None = Field(None, description="outputs of the frozen layer")
    base_id: BaseId | None = Field(None, description="adapt this base instead of a fresh one")
    rank: Rank = Field(4, description="r, at most min(in_features, out_features)")
    alpha: Alpha | None = Field(None, description="scaling = alpha / rank; default: the rank, so scaling is 1")
    use_rslora: bool = Field(False, description="scaling = alpha / √rank")
    use_dora: bool = Field(False, description="DoRA; true is refused until it exists")
    init: Init = Field("kaiming", description="kaiming: B is zero, so nothing changes; normal: A and B N(0, 1)")
    dropout: Dropout = Field(0.0, description="on the adapter's input, in training only")
    bias: bool = Field(True, description="the fresh base has a bias")
    train_bias: bool = Field(False, description="the adapter trains a copy of the bias of its own")
    seed: Seed | None = Field(None, description="of the fresh base and of A and B; drawn when left out")
    name: Text | None = Field(None, description="free text")
    metadata: Metadata | None = Field(None, description="up to 16 pairs of text")


class UpdateModelRequest(Request):
    """What may be changed of a model without training it; what is left out stays."""

    name: Text | None = Field(None, description="free text; null removes it")
    metadata: Metadata | None = Field(None, description="replaces all pairs; null removes them")


def _rows(name: str) -> Any:
    return lambda value: numbers(value, name)


def _targets(value: Any) -> Any:
    flat = isinstance(value, list) and value and not isinstance(value[0], list)
    return classes(value, "data.y") if flat else numbers(value, "data.y")


class RandomData(Request):
    """Inputs and targets N(0, 1)."""

    kind: Literal["random"] = "random"
    n_samples: Samples = 1_000
    seed: Seed | None = Field(None, description="of the rows; default: the job's seed")

    def described(self) -> plan.Data:
        return plan.Random(n_samples=self.n_samples, seed=self.seed)


class TeacherData(Request):
    """Inputs N(0, 1); targets from this base under a hidden change of rank `teacher_rank`, plus noise."""

    kind: Literal["teacher"]
    n_samples: Samples = 1_000
    teacher_rank: Rank | None = Field(None, description="default: the model's rank")
    noise: NotNegative = Field(0.0, description="standard deviation of what is added to the targets")
    seed: Seed | None = Field(None, description="of the rows and the change; default: the job's seed")

    def described(self) -> plan.Data:
        return plan.Teacher(**self.model_dump(exclude={"kind"}))


class DigitsData(Request):
    """The UCI optical handwritten digits: 1,797 rows of 64 values from 0 to 1, ten classes."""

    kind: Literal["digits"]
    split: digits.Split = Field("train", description="train: 1,437 rows; test: the other 360; all")

    def described(self) -> plan.Data:
        return plan.Digits(split=self.split)


class InlineData(Request):
    """Rows in the request itself."""

    kind: Literal["inline"]
    x: Annotated[Any, PlainValidator(_rows("data.x")), WithJsonSchema(NESTED_NUMBERS)] = Field(
        description="inputs (n, in_features)"
    )
    y: Annotated[Any, PlainValidator(_targets), WithJsonSchema(NESTED_NUMBERS)] = Field(
        description="targets (n, out_features), or one integer class per row"
    )

    def described(self) -> plan.Data:
        if not len(self.x):
            refuse("data/x", "data.x has no rows; at least one is needed")
        return plan.Inline(n_samples=len(self.x), targets=plan.targets_of(self.y))


DATA: dict[str, type[RandomData | TeacherData | DigitsData | InlineData]] = {
    "random": RandomData,
    "teacher": TeacherData,
    "digits": DigitsData,
    "inline": InlineData,
}


class TrainRequest(Request):
    """One training run. Every field is optional; no body at all means all defaults."""

    epochs: Epochs = Field(10, description="passes over the data")
    lr: LearningRate = Field(0.01, description="learning rate")
    optimizer: OptimizerName = "adam"
    betas: Annotated[list[Beta], Len(2, 2)] | None = Field(None, description="of adam and adamw; default 0.9, 0.999")
    eps: NotNegative | None = Field(None, description="of adam and adamw; default 1e-8")
    momentum: Beta | None = Field(None, description="of sgd; default 0")
    weight_decay: NotNegative | None = Field(None, description="default 0, for adamw 0.01")
    loss: LossName = "mse"
    batch_size: Samples | None = Field(None, description="null: one full batch per epoch; else shuffled minibatches")
    seed: Seed | None = Field(None, description="of data, order and dropout; drawn when left out")
    data: Annotated[RandomData | TeacherData | DigitsData | InlineData, Field(discriminator="kind")] = Field(
        default_factory=RandomData
    )

    def plan(self) -> plan.Plan:
        """The plan that this asks for."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        settings["betas"] = self.betas and tuple(self.betas)
        return plan.Plan(**{**settings, "data": self.data.described()})

    def rows(self) -> dict[str, Any]:
        """The x and y of inline data."""
        return {"x": self.data.x, "y": self.data.y} if isinstance(self.data, InlineData) else {}


class ForwardRequest(Request):
    """Inputs of shape (…, in_features): one row, a batch, or more leading dimensions."""

    inputs: Annotated[Any, WithJsonSchema(NESTED_NUMBERS)]
