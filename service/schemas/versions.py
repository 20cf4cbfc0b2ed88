"""Versions of a model."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from service.schemas.choices import Origin
from service.schemas.fields import A_JOB_ID, JobId, Plan, example
from service.training import digests, plan, sources

CREATED: dict[str, Any] = {
    "version": 0,
    "created_at": "2026-11-24T10:00:00Z",
    "origin": "created",
    "parent": None,
    "job_id": None,
    "data_digest": None,
    "plan": None,
    "loss": None,
    "validation_loss": None,
    "current": False,
    "best": False,
    "bytes": 1184,
}
DATA = sources.Random(seed=42)
TRAINED: dict[str, Any] = {
    **CREATED,
    "version": 1,
    "created_at": "2026-11-24T10:00:05Z",
    "origin": "training",
    "parent": 0,
    "job_id": A_JOB_ID,
    "data_digest": digests.digest_of(DATA),
    "plan": plan.as_dict(plan.Plan(epochs=2, seed=42, data=DATA, path="moments")),
    "loss": 1.24,
    "current": True,
    "best": True,
}


class Version(BaseModel):
    """Weights that a model has or had, and where they come from."""

    model_config = example(TRAINED)

    version: int
    created_at: datetime
    origin: Origin = Field(
        description="import: PUT …/adapter; rollback: the weights of an earlier version, published anew"
    )
    parent: int | None = Field(description="the version that it was made from, which may not be kept any longer")
    job_id: JobId | None = Field(description="the job that trained it")
    data_digest: str | None = Field(
        description="SHA-256 that names the data it was trained on: of the rows, or of the description of what is drawn"
    )
    plan: Plan | None = Field(description="every setting of its training")
    loss: float | None = Field(description="metrics.final_loss of its training; of a rollback, that of its parent")
    current: bool = Field(description="the model has it now")
    validation_loss: float | None = Field(description="metrics.validation_loss, where rows were held out")
    best: bool = Field(
        description="the lowest loss, held out where rows were, of the trainings with the loss and the rows of the "
        "latest; it is kept however old it is"
    )
    bytes: int = Field(description="memory of its tensors")


class VersionPage(BaseModel):
    """The versions of a model that are kept, newest first."""

    model_config = example({"items": [TRAINED, CREATED], "next_cursor": None})

    items: list[Version]
    next_cursor: None = None
