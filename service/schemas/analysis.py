"""What the service answers of the change that a model makes."""

from pydantic import BaseModel, Field

from service.schemas.fields import A_MODEL_ID, ModelId, example


class Heatmap(BaseModel):
    """A matrix as a picture: the means of its blocks, at most 64 by 64, whose sides differ by one at most."""

    shape: list[int] = Field(min_length=2, max_length=2, description="of the matrix itself")
    values: list[list[float]]


class Heatmaps(BaseModel):
    """Pictures of A (with its frozen ranks), of B, and of the change of the weight."""

    A: Heatmap
    B: Heatmap
    delta: Heatmap


class Overlap(BaseModel):
    """How near the change is to that of another model on the base; null where one of them changes nothing."""

    model_id: ModelId
    version: int
    cosine: float | None = Field(description="⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖ ‖ΔW₂‖), from -1 to 1")
    input: float | None = Field(description="of the smaller row space, the part within the other: 0 to 1")
    output: float | None = Field(description="of the smaller column space, likewise (Hu et al. 2021, 7.2)")


class Analysis(BaseModel):
    """The change ΔW of the weight that a model's adapter makes, its scaling included. Norms are Frobenius norms."""

    model_config = example(
        {
            "model_id": A_MODEL_ID,
            "version": 1,
            "singular_values": [2.0, 1.0],
            "effective_rank": 1.8898815748423097,
            "stable_rank": 1.25,
            "energy": [0.8, 1.0],
            "norm": 2.23606797749979,
            "base_norm": 4.47213595499958,
            "relative_norm": 0.5,
            "heatmaps": {
                "A": {"shape": [2, 2], "values": [[1.0, 0.0], [0.0, 1.0]]},
                "B": {"shape": [2, 2], "values": [[2.0, 0.0], [0.0, 1.0]]},
                "delta": {"shape": [2, 2], "values": [[2.0, 0.0], [0.0, 1.0]]},
            },
            "overlap": {"model_id": A_MODEL_ID, "version": 1, "cosine": 1.0, "input": 1.0, "output": 1.0},
        }
    )

    model_id: ModelId
    version: int
    singular_values: list[float] = Field(
        description="of ΔW, from the largest, as many as its rank can be; what cannot be told from rounding is 0"
    )
    effective_rank: float = Field(description="exp of the entropy of σ/Σσ (Roy and Vetterli 2007); 0 of no change")
    stable_rank: float = Field(description="‖ΔW‖² / σ₁²; 0 of no change")
    energy: list[float] | None = Field(
        description="the share of Σσ² that the best change of rank 1, 2, … keeps; null of no change"
    )
    norm: float = Field(description="‖ΔW‖")
    base_norm: float = Field(description="‖W‖ of the frozen weight")
    relative_norm: float | None = Field(description="norm / base_norm; null where the frozen weight is zero")
    heatmaps: Heatmaps
    overlap: Overlap | None = Field(description="null without `?with=`")
