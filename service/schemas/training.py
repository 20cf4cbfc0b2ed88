"""What the service answers about jobs, data sets, sweeps and ranks."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from service.jobs.state import State
from service.schemas.choices import EventKind, Path, Targets
from service.schemas.fields import (
    A_DATASET_ID,
    A_JOB_ID,
    A_MODEL_ID,
    A_SWEEP_ID,
    DatasetId,
    JobId,
    ModelId,
    Plan,
    SweepId,
    example,
)
from service.training import plan, sources

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
    "curve_epochs": None,
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


class Job(BaseModel):
    """The record of one training run."""

    model_config = example(JOB_EXAMPLE)

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
    curve_epochs: list[int] | None = Field(
        description="the epochs that the numbers above are of, where `points` left some out; else null: all from 1 on"
    )
    path: Path = Field(description="how an epoch is computed: from the data's moments or its rows")
    together: int | None = Field(description="how many jobs, this one included, were trained in one stacked step")
    plan: Plan = Field(description="every setting in force, seeds included")
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

    model_config = example(
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

    model_config = example(DATASET_EXAMPLE)

    id: DatasetId
    in_features: int
    out_features: int | None = Field(description="null where the targets are classes")
    targets: Targets = Field(description="what y holds")
    weighted: bool = Field(description="each row has a weight")
    n_samples: int = Field(description="rows so far")
    keep_rows: bool = Field(description="the rows are kept, and not their moments alone")
    moments: bool = Field(description="their second moments are there: full-batch mse needs nothing else")
    bytes: int = Field(description="memory that it takes")
    created_at: datetime
    updated_at: datetime
    durable: bool = Field(description="whether it outlives a restart of the service")


class DatasetPage(BaseModel):
    """Some data sets, and the cursor to the next of them."""

    model_config = example({"items": [DATASET_EXAMPLE], "next_cursor": None})

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

    model_config = example(SWEEP_EXAMPLE)

    id: SweepId
    state: Literal["running", "ended"]
    created_at: datetime
    counts: dict[str, int] = Field(description="members by the state of their job")
    leaderboard: list[Standing] = Field(description="the best first")


class SweepPage(BaseModel):
    """Some sweeps, and the cursor to the next of them."""

    model_config = example({"items": [SWEEP_EXAMPLE], "next_cursor": None})

    items: list[Sweep]
    next_cursor: str | None


class JobPage(BaseModel):
    """Some jobs, and the cursor to the next of them."""

    model_config = example({"items": [JOB_EXAMPLE], "next_cursor": None})

    items: list[Job]
    next_cursor: str | None


class Event(BaseModel):
    """One thing that happened to a job; numbered from 1 without gap."""

    id: int
    event: EventKind
    data: dict[str, Any]


class EventPage(BaseModel):
    """The events of a job so far."""

    model_config = example(
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
