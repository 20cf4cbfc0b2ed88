"""Kinds of fields that several bodies have, each with an example."""

from typing import Annotated, Any

from annotated_types import Ge, Len
from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema
from typing_extensions import TypeAliasType

from service.ids import BASE_ID, DATASET_ID, JOB_ID, MODEL_ID, SWEEP_ID

NESTED_NUMBERS = {
    "type": "array",
    "description": "Nested lists of numbers, all rows equally long; at most 8 levels and 1,048,576 numbers.",
    "items": {"anyOf": [{"type": "number"}, {"type": "array", "items": {}}]},
}

# Text of the user's own: no control characters, so that it can be shown anywhere.
TEXT = r"^[^\x00-\x1f\x7f-\x9f]*$"
MAX_TEXT = 256
MAX_PAIRS = 16
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=TEXT)]
# The same for keys and values, in words that generators of clients understand.
TEXT_SCHEMA = {"type": "string", "maxLength": MAX_TEXT, "pattern": TEXT}
PAIRS_SCHEMA = {
    "type": "object",
    "maxProperties": MAX_PAIRS,
    "propertyNames": {"maxLength": MAX_TEXT, "pattern": TEXT},
    "additionalProperties": TEXT_SCHEMA,
}
Metadata = TypeAliasType(
    "Metadata", Annotated[dict[Text, Text], Len(max_length=MAX_PAIRS), WithJsonSchema(PAIRS_SCHEMA)]
)
Plan = TypeAliasType("Plan", dict[str, Any])  # every setting of a training
Number = Annotated[int, Ge(0)]  # of a version
A_MODEL_ID = "mdl_01M85RD3BCCMDPHHSCEG79B55H"
A_BASE_ID = "base_2d5cb5b8f4f24b3a9d2a9a0b5b1f6f7a3c1c7a1a35b8f9c4c2f0d1e6a7b8c9d0"
A_JOB_ID = "job_01M85RD3BCCMDPHHSCEG79B55J"
A_DATASET_ID = "dat_01M85RD3BCCMDPHHSCEG79B55K"
A_SWEEP_ID = "swp_01M85RD3BCCMDPHHSCEG79B55M"

ModelId = Annotated[str, Field(pattern=MODEL_ID, examples=[A_MODEL_ID])]
BaseId = Annotated[str, Field(pattern=BASE_ID, examples=[A_BASE_ID])]
JobId = Annotated[str, Field(pattern=JOB_ID, examples=[A_JOB_ID])]
SweepId = Annotated[str, Field(pattern=SWEEP_ID, examples=[A_SWEEP_ID])]
DatasetId = Annotated[str, Field(pattern=DATASET_ID, examples=[A_DATASET_ID])]


def example(value: dict[str, Any]) -> ConfigDict:
    """The configuration of a body that shows itself by `value`."""
    return ConfigDict(json_schema_extra={"examples": [value]})
