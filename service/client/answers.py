"""Answers as the types of `service.schemas`; what a newer service says beside is kept."""

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from service.client.problems import unexpected
from service.codecs import npy, safetensors
from service.codecs.safetensors import Tensors
from service.errors import Validation

T = TypeVar("T")


class Page(Protocol[T]):
    """Some items, and the cursor to the next of them."""

    @property
    def items(self) -> "list[T]": ...

    @property
    def next_cursor(self) -> str | None: ...


def read(kind: type[T], answer: httpx.Response, context: object = None) -> T:
    """The answer as a value of this type; `context` is told to all that is made of it.

    Raises:
        Problem: for an answer of another form.
    """
    try:
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # a class is hashable
        return adapter.validate_json(answer.content, extra="allow", context=context)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise unexpected(answer, f"{place}: {first['msg']}") from None


def array(answer: httpx.Response) -> NDArray[np.generic]:
    """The array of a npy file."""
    return _decoded(npy.load, answer)


def tensors(answer: httpx.Response) -> Tensors:
    """The tensors of a safetensors file."""
    return _decoded(safetensors.load, answer)


def _decoded(load: Callable[[bytes], T], answer: httpx.Response) -> T:
    try:
        return load(answer.content)
    except Validation as error:
        raise unexpected(answer, error.detail) from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
