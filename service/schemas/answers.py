"""What the service answers."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from service.schemas.choices import NotFinite
from service.schemas.fields import (
    A_BASE_ID,
    A_MODEL_ID,
    BaseId,
    Metadata,
    ModelId,
    example,
)


class ForwardResponse(BaseModel):
    """Outputs of shape (…, out_features), and the version that made them."""

    model_config = example({"outputs": [[0.5, -1.25]], "shape": [1, 2], "model_id": A_MODEL_ID, "model_version": 1})

    outputs: list[float | NotFinite | list[Any]] = Field(
        description="nested lists of numbers; one that is not finite is a word, as in the JSON of protocol buffers"
    )
    shape: list[int]
    model_id: ModelId
    model_version: int


class MixedForwardResponse(BaseModel):
    """The outputs for each item, in the order in which they came."""

    items: list[ForwardResponse]


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
    "combined": None,
    "durable": False,
    "layers": None,
}


BASE_EXAMPLE: dict[str, Any] = {
    "id": A_BASE_ID,
    "in_features": 384,
    "out_features": 384,
    "bias": True,
    "dtype": "bfloat16",
    "bytes": 591_360,
    "models": 2,
    "uploaded": True,
    "created_at": "2026-11-24T10:00:00Z",
    "durable": False,
}


class Parameters(BaseModel):
    """How many numbers a model has, and how many training may change."""

    trainable: int
    frozen: int
    total: int
    trainable_percent: float


class Layer(BaseModel):
    """One layer of a model that has several."""

    base_id: BaseId
    in_features: int
    out_features: int
    bias: bool
    rank: int
    alpha: float
    scaling: float
    activation: str | None = Field(description="between this layer and the next; null after the last")
    parameters: Parameters


class CombinedMember(BaseModel):
    """A model in a sum: the version that was taken, and how much it counts."""

    model_id: ModelId
    version: int
    weight: float


class Combined(BaseModel):
    """The sum of models that version 0 of a model is."""

    members: list[CombinedMember]
    rank: int = Field(
        description="ranks of the members together, or min(in_features, out_features) where one of them has use_dora: "
        "with so many nothing is left out"
    )
    error: float = Field(description="‖Σ - ΔW‖_F of what was left out; 0 where nothing was, but for rounding")
    relative_error: float = Field(description="error / ‖Σ‖_F")


class Model(BaseModel):
    """One LoRA adapter on one base, or on a chain of several layers; what each of these has is null then."""

    model_config = example(MODEL_EXAMPLE)

    id: ModelId
    base_id: BaseId | None
    in_features: int
    out_features: int
    rank: int | None
    alpha: float | None
    scaling: float | None
    use_rslora: bool
    use_dora: bool
    init: str
    dropout: float
    bias: bool | None
    train_bias: bool
    seed: int
    name: str | None
    metadata: Metadata
    version: int = Field(description="0 at creation, one more each time training publishes new weights")
    parameters: Parameters
    bytes: int = Field(description="memory of the adapter; the base is shared")
    created_at: datetime
    updated_at: datetime
    last_loss: float | None = Field(description="metrics.final_loss of the last job that succeeded")
    combined: Combined | None = Field(description="what `combine` made it of; null for others")
    durable: bool = Field(description="whether the model outlives a restart of the service")
    layers: list[Layer] | None = Field(description="of a model that has several, in their order; else null")


class ModelPage(BaseModel):
    """Some models, and the cursor to the next of them."""

    model_config = example({"items": [MODEL_EXAMPLE], "next_cursor": None})

    items: list[Model]
    next_cursor: str | None


class Base(BaseModel):
    """A frozen layer."""

    model_config = example(BASE_EXAMPLE)

    id: BaseId
    in_features: int
    out_features: int
    bias: bool
    dtype: str = Field(description="of the file it came in; it is computed in float32")
    bytes: int = Field(description="memory of its tensors in float32")
    models: int = Field(description="how many stand on it")
    uploaded: bool = Field(description="whether it stays when its last model goes")
    created_at: datetime
    durable: bool = Field(description="whether it outlives a restart of the service")


class BasePage(BaseModel):
    """Some bases, and the cursor to the next of them."""

    model_config = example({"items": [BASE_EXAMPLE], "next_cursor": None})

    items: list[Base]
    next_cursor: str | None


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
    trace_id: str | None = Field(None, description="the trace that a `traceparent` header named")
    retryable: bool = Field(description="whether the same request may succeed later")
    errors: list[ProblemFault] = Field(max_length=20)
    error: str = Field(description="the detail, where the Open Inference Protocol looks for it")


class Health(BaseModel):
    """How the service is; with `?verbose` each check by name, and how many workers are ready."""

    status: Literal["ok", "ready"]
    checks: dict[str, str] = {}
    workers: dict[str, int] = {}


class AdapterConfig(BaseModel):
    """`adapter_config.json` of PEFT."""

    model_config = ConfigDict(extra="allow")

    peft_type: Literal["LORA"]
    r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: list[str]
    use_rslora: bool
    use_dora: bool


class Limit(BaseModel):
    """One limit in force."""

    value: int | float
    unit: str
    description: str
    setting: str | None = Field(description="the environment variable that moves it")


LimitByName = TypeAliasType("LimitByName", dict[str, Limit])


class Limits(BaseModel):
    """Every limit in force, and whether what the service holds outlives a restart."""

    model_config = example(
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
    limits: LimitByName
