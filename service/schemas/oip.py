"""Bodies of the Open Inference Protocol v2."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len
from pydantic import BaseModel, ConfigDict, WithJsonSchema

from service.codecs.codec import MAX_DIMENSIONS
from service.schemas.choices import Datatype, NotFinite
from service.schemas.fields import NESTED_NUMBERS, Text
from service.schemas.requests import Request


class Parameters(BaseModel):
    """An open map: whatever clients send along for others, such as MLServer's `content_type`, is let pass."""

    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)


class InputParameters(Parameters):
    """How the input comes, and whatever else; shared memory is no way to reach this server."""

    binary_data_size: Annotated[int, Ge(0)] | None = None
    shared_memory_region: None = None


class OutputParameters(Parameters):
    """How the output is wanted, and whatever else; it is neither put into shared memory nor sorted by classes."""

    binary_data: bool | None = None
    shared_memory_region: None = None
    classification: None = None


class InferParameters(Parameters):
    """How all outputs are wanted, and whatever else."""

    binary_data_output: bool | None = None


class InferInput(Request):
    """The one input tensor; its name is free. Numbers in `data`, or bytes that `binary_data_size` announces."""

    name: Text
    shape: Annotated[list[Annotated[int, Ge(0), Le(2**31)]], Len(1, MAX_DIMENSIONS)]
    datatype: Datatype
    parameters: InputParameters | None = None
    data: Annotated[Any, WithJsonSchema(NESTED_NUMBERS)] = None

    @property
    def binary_size(self) -> int | None:
        """How many bytes of it follow the JSON; None where it stands within."""
        return None if self.parameters is None else self.parameters.binary_data_size


class InferOutput(Request):
    """The one output tensor, where it is asked for by name; `binary_data` wants it as bytes."""

    name: Literal["outputs"]
    parameters: OutputParameters | None = None


class InferRequest(Request):
    """Inputs of shape (…, in_features)."""

    id: Text | None = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InferInput], Len(1, 1)]
    outputs: Annotated[list[InferOutput], Len(0, 1)] | None = None

    @property
    def binary(self) -> bool:
        """Whether the outputs are wanted as bytes."""
        of_output = self.outputs[0].parameters if self.outputs else None
        own = None if of_output is None else of_output.binary_data
        of_all = None if self.parameters is None else self.parameters.binary_data_output
        return bool(of_all if own is None else own)


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives; -1 stands for any number of rows."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(BaseModel):
    """What serves the models."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """Whether the process answers."""

    live: bool


class ServerReady(BaseModel):
    """Whether the service takes work."""

    ready: bool


class ModelReady(BaseModel):
    """Whether a model can be run."""

    name: str
    ready: bool


class BinarySize(BaseModel):
    """How many bytes of an output follow the JSON."""

    binary_data_size: int


class OutputTensor(BaseModel):
    """An output: its numbers in a row, or how many bytes they take behind the JSON."""

    name: str
    datatype: Datatype
    shape: list[int]
    data: list[float | NotFinite] | None = None
    parameters: BinarySize | None = None


class InferResponse(BaseModel):
    """The outputs, in a flat list or as bytes."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]
