"""Kinds of fields that several bodies have, each with an example."""

from typing import Annotated, Any

from annotated_types import Ge, Len
from pydantic import ConfigDict, Field, StringConstraints

from service.bounds import NOT_FINITE
from service.ids import BASE_ID, DATASET_ID, JOB_ID, MODEL_ID, SWEEP_ID

NESTED_NUMBERS = {
    "type": "array",
    "description": "Nested lists of numbers, all rows equally long; at most 8 levels and 1,048,576 numbers.",
    "items": {"anyOf": [{"type": "number"}, {"type": "array", "items": {}}]},
}
NOT_FINITE_TOO = {"type": "string", "enum": list(NOT_FINITE)}
NESTED_OUTPUTS = {
    "type": "array",
    "description": "Nested lists of numbers; one that is not finite is a word, as in the JSON of protocol buffers.",
    "items": {"anyOf": [{"type": "number"}, NOT_FINITE_TOO, {"type": "array", "items": {}}]},
}

# Text of the user's own: no control characters, so that it can be shown anywhere.
TEXT = r"^[^\x00-\x1f\x7f-\x9f]*$"
MAX_TEXT = 256
MAX_PAIRS = 16
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=TEXT)]
Metadata = Annotated[dict[Text, Text], Len(max_length=MAX_PAIRS)]
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
