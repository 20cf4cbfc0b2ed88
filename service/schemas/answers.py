"""What the service answers."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from service.jobs.state import State
from service.schemas.fields import (
    A_BASE_ID,
    A_DATASET_ID,
    A_JOB_ID,
    A_MODEL_ID,
    A_SWEEP_ID,
    NESTED_NUMBERS,
    BaseId,
    DatasetId,
    JobId,
    ModelId,
    SweepId,
)
from service.training import plan, sources


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


class ForwardResponse(BaseModel):
    """Outputs of shape (…, out_features), and the version that made them."""

    model_config = _example({"outputs": [[0.5, -1.25]], "shape": [1, 2], "model_id": A_MODEL_ID, "model_version": 1})

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
    "validation_losses": None,
    "accuracies": None,
    "validation_accuracies": None,
    "path": "moments",
    "together": 1,
    "plan": plan.as_dict(plan.Plan(epochs=2, seed=42, data=sources.Random(seed=42), path="moments")),
    "created_at": "2026-11-24T10:00:05Z",
    "started_at": "2026-11-24T10:00:05Z",
    "finished_at": "2026-11-24T10:00:05Z",
    "duration_seconds": 0.004,
    "model_version": 1,
    "metrics": {"final_loss": 1.24, "optimum_loss": 1.05, "gap_closed": 0.05},
}


class Parameters(BaseModel):
    """How many numbers a model has, and how many training may change."""

    trainable: int
    frozen: int
    total: int
    trainable_percent: float


class Model(BaseModel):
    """One LoRA adapter on one base."""

    model_config = _example(MODEL_EXAMPLE)

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

    model_config = _example(JOB_EXAMPLE)

    id: JobId
    model_id: ModelId
    state: State
    reason: str | None = Field(
        description="why it failed: diverged, worker-died, out-of-memory, interrupted, state-gone or internal-error"
    )
    detail: str | None = Field(description="the same as a sentence")
    epochs: int
    epoch: int = Field(description="finished so far")
    losses: list[float] = Field(description="one for each finished epoch")
    validation_losses: list[float] | None = Field(description="the same for validation data, after the epoch's updates")
    accuracies: list[float] | None = Field(description="for cross_entropy: the share of rows whose class came out")
    validation_accuracies: list[float] | None = Field(description="the same for validation data")
    path: Literal["moments", "batch"] = Field(
        description="how an epoch is computed: from the data's moments or its rows"
    )
    together: int | None = Field(description="how many jobs, this one included, were trained in one stacked step")
    plan: dict[str, Any] = Field(description="every setting in force, seeds included")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    model_version: int | None = Field(description="the version it published")
    metrics: dict[str, int | float | str | None] = Field(
        description="final_loss: of the published weights over all training data; optimum_loss: the lowest that any "
        "adapter of this rank reaches; gap_closed: (losses[0] - final_loss) / (losses[0] - optimum_loss); best_epoch: "
        "with early_stopping, how many epochs the published weights were trained for (without validation and batches "
        "an epoch's loss is measured before its update, so it is the next epoch that shows their loss)"
    )


class Reach(BaseModel):
    """What the best adapter of a rank reaches."""

    rank: int
    loss: float = Field(description="the lowest that any adapter of this rank has over the data")
    trainable: int = Field(description="the parameters of such an adapter")


class RankProfile(BaseModel):
    """The reach of every rank from 0 to min(in_features, out_features)."""

    model_config = _example(
        {
            "model_id": A_MODEL_ID,
            "data": asdict(sources.Teacher(teacher_rank=2, seed=1)),
            "ranks": [
                {"rank": 0, "loss": 1.42, "trainable": 0},
                {"rank": 1, "loss": 0.81, "trainable": 74},
                {"rank": 2, "loss": 0.01, "trainable": 148},
            ],
        }
    )

    model_id: ModelId
    data: dict[str, Any] = Field(description="what it was computed on, seed included")
    ranks: list[Reach]


DATASET_EXAMPLE: dict[str, Any] = {
    "id": A_DATASET_ID,
    "in_features": 64,
    "out_features": 10,
    "targets": "numbers",
    "weighted": False,
    "n_samples": 100_000,
    "keep_rows": False,
    "moments": True,
    "bytes": 38_504,
    "created_at": "2026-11-24T10:00:00Z",
    "updated_at": "2026-11-24T10:00:05Z",
    "durable": False,
}


class Dataset(BaseModel):
    """Uploaded rows to train on."""

    model_config = _example(DATASET_EXAMPLE)

    id: DatasetId
    in_features: int
    out_features: int | None = Field(description="null where the targets are classes")
    targets: Literal["numbers", "probabilities", "classes"] = Field(description="what y holds")
    weighted: bool = Field(description="each row has a weight")
    n_samples: int = Field(description="rows so far")
    keep_rows: bool = Field(description="the rows are kept, and not their moments alone")
    moments: bool = Field(description="their second moments are there: full-batch mse needs nothing else")
    bytes: int = Field(description="memory that it takes")
    created_at: datetime
    updated_at: datetime
    durable: bool = Field(description="whether it outlives a restart of the service")


class DatasetPage(BaseModel):
    """Some data sets, oldest first, and the cursor to the next of them."""

    model_config = _example({"items": [DATASET_EXAMPLE], "next_cursor": None})

    items: list[Dataset]
    next_cursor: str | None


SWEEP_EXAMPLE: dict[str, Any] = {
    "id": A_SWEEP_ID,
    "state": "ended",
    "created_at": "2026-11-24T10:00:00Z",
    "counts": {"succeeded": 1},
    "leaderboard": [
        {
            "place": 1,
            "model_id": A_MODEL_ID,
            "job_id": A_JOB_ID,
            "state": "succeeded",
            "settings": {"rank": 3, "lr": 0.01},
            "trainable": 222,
            "epoch": 100,
            "validation_loss": 0.11,
            "final_loss": 0.09,
        }
    ],
}


class Standing(BaseModel):
    """How one member of a sweep stands."""

    place: int
    model_id: ModelId
    job_id: JobId
    state: str = Field(description="of its job; forgotten when that was dropped for newer ones")
    settings: dict[str, Any] = Field(description="what this member tries")
    trainable: int | None = Field(description="parameters; null when the model was deleted")
    epoch: int
    validation_loss: float | None = Field(description="on the held-out rows; while it trains, of its latest epoch")
    final_loss: float | None = Field(description="on the rows it was trained on")


class Sweep(BaseModel):
    """Many settings compared."""

    model_config = _example(SWEEP_EXAMPLE)

    id: SweepId
    state: Literal["running", "ended"]
    created_at: datetime
    counts: dict[str, int] = Field(description="members by the state of their job")
    leaderboard: list[Standing] = Field(description="the best first")


class SweepPage(BaseModel):
    """Some sweeps, oldest first, and the cursor to the next of them."""

    model_config = _example({"items": [SWEEP_EXAMPLE], "next_cursor": None})

    items: list[Sweep]
    next_cursor: str | None


class ModelPage(BaseModel):
    """Some models, oldest first, and the cursor to the next of them."""

    model_config = _example({"items": [MODEL_EXAMPLE], "next_cursor": None})

    items: list[Model]
    next_cursor: str | None


class JobPage(BaseModel):
    """Some jobs, oldest first, and the cursor to the next of them."""

    model_config = _example({"items": [JOB_EXAMPLE], "next_cursor": None})

    items: list[Job]
    next_cursor: str | None


class Event(BaseModel):
    """One thing that happened to a job; numbered from 1 without gap."""

    id: int
    event: Literal["state", "epoch", "done"]
    data: dict[str, Any]


class EventPage(BaseModel):
    """The events of a job so far."""

    model_config = _example(
        {
            "items": [
                {"id": 1, "event": "state", "data": {"state": "queued", "reason": None}},
                {"id": 2, "event": "state", "data": {"state": "running", "reason": None}},
                {"id": 3, "event": "epoch", "data": {"epoch": 1, "epochs": 2, "loss": 1.25}},
            ],
            "next_cursor": None,
        }
    )

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

    model_config = _example(
        {
            "durable": False,
            "limits": {
                "max_models": {
                    "value": 10_000,
                    "unit": "models",
                    "description": "models",
                    "setting": "LORA_MAX_MODELS",
                }
            },
        }
    )

    durable: bool
    limits: dict[str, Limit]
