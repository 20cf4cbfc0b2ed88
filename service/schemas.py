"""Request and response bodies. Bounds and choices come from the rooms below; here they meet JSON."""

from datetime import datetime
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints, WithJsonSchema

from service.codecs.json import classes, numbers
from service.ids import BASE_ID, JOB_ID, MODEL_ID
from service.jobs.state import State
from service.lora.spec import Alpha, Dropout, Features, Init, Rank, Seed, refuse
from service.training import digits, plan
from service.training.plan import Beta, Epochs, LearningRate, LossName, NotNegative, OptimizerName, Samples

NESTED_NUMBERS = {
    "type": "array",
    "description": "Nested lists of numbers, all rows equally long; at most 8 levels and 1,048,576 numbers.",
    "items": {"anyOf": [{"type": "number"}, {"type": "array", "items": {}}]},
}

# Text of the user's own: no control characters, so that it can be shown anywhere.
TEXT = r"^[^\x00-\x1f\x7f-\x9f]*$"
Text = Annotated[str, StringConstraints(max_length=256, pattern=TEXT)]
Metadata = Annotated[dict[Text, Text], Len(max_length=16)]
A_MODEL_ID = "mdl_01M85RD3BCCMDPHHSCEG79B55H"
A_BASE_ID = "base_2d5cb5b8f4f24b3a9d2a9a0b5b1f6f7a3c1c7a1a35b8f9c4c2f0d1e6a7b8c9d0"
A_JOB_ID = "job_01M85RD3BCCMDPHHSCEG79B55J"

ModelId = Annotated[str, Field(pattern=MODEL_ID, examples=[A_MODEL_ID])]
BaseId = Annotated[str, Field(pattern=BASE_ID, examples=[A_BASE_ID])]
JobId = Annotated[str, Field(pattern=JOB_ID, examples=[A_JOB_ID])]


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
    metadata: Metadata = Field(default_factory=dict, description="up to 16 pairs of text")


class UpdateModelRequest(Request):
    """What may be changed of a model without training it; what is left out stays."""

    name: Text | None = Field(None, description="free text; null removes it")
    metadata: Metadata = Field(default_factory=dict, description="replaces all pairs")


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


class ForwardResponse(BaseModel):
    """Outputs of shape (…, out_features), and the version that made them."""

    outputs: Annotated[Any, WithJsonSchema(NESTED_NUMBERS)]
    shape: list[int]
    model_id: ModelId
    model_version: int


MODEL_EXAMPLE: dict[str, Any] = {
    "id": A_MODEL_ID,
    "base_id": A_BASE_ID,
    "in_features": 64,
    "out_features": 10,
    "rank": 4,
    "alpha": 4.0,
    "scaling": 1.0,
    "use_rslora": False,
    "use_dora": False,
    "init": "kaiming",
    "dropout": 0.0,
    "bias": True,
    "train_bias": False,
    "seed": 42,
    "name": None,
    "metadata": {},
    "version": 1,
    "parameters": {"trainable": 296, "frozen": 650, "total": 946, "trainable_percent": 31.29},
    "bytes": 1184,
    "created_at": "2026-11-24T10:00:00Z",
    "updated_at": "2026-11-24T10:00:05Z",
    "last_loss": 1.24,
    "durable": False,
}
JOB_EXAMPLE: dict[str, Any] = {
    "id": A_JOB_ID,
    "model_id": A_MODEL_ID,
    "state": "succeeded",
    "reason": None,
    "detail": None,
    "epochs": 2,
    "epoch": 2,
    "losses": [1.25, 1.24],
    "plan": plan.as_dict(plan.Plan(epochs=2, seed=42, data=plan.Random(seed=42))),
    "created_at": "2026-11-24T10:00:05Z",
    "started_at": "2026-11-24T10:00:05Z",
    "finished_at": "2026-11-24T10:00:05Z",
    "duration_seconds": 0.004,
    "model_version": 1,
    "metrics": {"final_loss": 1.24},
}


class Parameters(BaseModel):
    """How many numbers a model has, and how many training may change."""

    trainable: int
    frozen: int
    total: int
    trainable_percent: float


class Model(BaseModel):
    """One LoRA adapter on one base."""

    model_config = ConfigDict(json_schema_extra={"examples": [MODEL_EXAMPLE]})

    id: ModelId
    base_id: BaseId
    in_features: int
    out_features: int
    rank: int
    alpha: float
    scaling: float
    use_rslora: bool
    use_dora: bool
    init: str
    dropout: float
    bias: bool
    train_bias: bool
    seed: int
    name: str | None
    metadata: dict[str, str]
    version: int = Field(description="0 at creation, one more each time training publishes new weights")
    parameters: Parameters
    bytes: int = Field(description="memory of the adapter; the base is shared")
    created_at: datetime
    updated_at: datetime
    last_loss: float | None = Field(description="metrics.final_loss of the last job that succeeded")
    durable: bool = Field(description="whether the model outlives a restart of the service")


class Job(BaseModel):
    """The record of one training run."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    id: JobId
    model_id: ModelId
    state: State
    reason: str | None = Field(
        description="why it failed: diverged, worker-died, out-of-memory, interrupted or internal-error"
    )
    detail: str | None = Field(description="the same as a sentence")
    epochs: int
    epoch: int = Field(description="finished so far")
    losses: list[float] = Field(description="one for each finished epoch")
    plan: dict[str, Any] = Field(description="every setting in force, seeds included")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    model_version: int | None = Field(description="the version it published")
    metrics: dict[str, float] = Field(description="final_loss: of the published weights over all training data")


class ModelPage(BaseModel):
    """Some models, oldest first, and the cursor to the next of them."""

    items: list[Model]
    next_cursor: str | None


class JobPage(BaseModel):
    """Some jobs, oldest first, and the cursor to the next of them."""

    items: list[Job]
    next_cursor: str | None


class Event(BaseModel):
    """One thing that happened to a job; numbered from 1 without gap."""

    id: int
    event: Literal["state", "epoch", "done"]
    data: dict[str, Any]


class EventPage(BaseModel):
    """The events of a job so far."""

    items: list[Event]
    next_cursor: None = None


class ProblemFault(BaseModel):
    """One thing that is wrong."""

    pointer: str = Field(description="JSON pointer (RFC 6901) to it")
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="/problems/{slug}: a page that says what it means", examples=["/problems/validation"])
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    retryable: bool = Field(description="whether the same request may succeed later")
    errors: list[ProblemFault] = Field(max_length=20)
    error: str = Field(description="the detail, where the Open Inference Protocol looks for it")


class Limit(BaseModel):
    """One limit in force."""

    value: int
    unit: str
    description: str
    setting: str | None = Field(description="the environment variable that moves it")


class Limits(BaseModel):
    """Every limit in force, and whether what the service holds outlives a restart."""

    durable: bool
    limits: dict[str, Limit]
