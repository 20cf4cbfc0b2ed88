"""Requests as values: what is asked of the service, whoever sends it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import uuid4

import orjson
from pydantic import BaseModel

from service.client import arrays
from service.codecs.safetensors import SAFETENSORS
from service.schemas.training import Dataset

JSON = "application/json"
MAX_WAIT_SECONDS = 60  # for which the service keeps a request that waits


def bearer(api_key: str | None) -> dict[str, str]:
    """The header that a key is sent in (RFC 6750).

    Raises:
        ValueError: for a key that no header can hold; it does not say which.
    """
    if api_key is None:
        return {}
    if not re.fullmatch("[!-~]+", api_key):
        raise ValueError("the API key is empty, or holds a space, the end of a line or what is no ASCII")
    return {"Authorization": f"Bearer {api_key}"}


class Made(Protocol):
    """What the service made has an id, by which it is asked for."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        repeatable: whether sending it twice does no more than sending it once.
        patient: whether to ask again of a service that has too much to do.
        wait_seconds: for how much longer than usual the service may say nothing.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    repeatable: bool = True
    patient: bool = True
    wait_seconds: float = 0

    def now(self) -> "Call":
        """The call whose first answer counts."""
        return replace(self, patient=False)

    def once(self) -> "Call":
        """The call with a key by which the service knows it again, so that a repeat changes nothing."""
        return self._with({"Idempotency-Key": uuid4().hex})

    def preferring(self, wait_seconds: float) -> "Call":
        """The call that the service answers when what it starts has ended, or after so many seconds."""
        seconds = min(max(int(wait_seconds), 0), MAX_WAIT_SECONDS)
        return replace(self._with({"Prefer": f"wait={seconds}"}), wait_seconds=seconds)

    def _with(self, headers: Mapping[str, str]) -> "Call":
        return replace(self, headers={**self.headers, **headers})


def ident(of: str | Made) -> str:
    """The id of what the service made, which may be given as such.

    Raises:
        ValueError: for text that cannot be a part of a path, such as one with a slash.
    """
    name = of if isinstance(of, str) else of.id
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name):
        raise ValueError(f"{name!r} is no id; ids look like mdl_01M85RD3BCCMDPHHSCEG79B55H")
    return name


def at(*parts: str | Made) -> str:
    """The path of these parts."""
    return "".join(f"/{ident(part)}" for part in parts)


def get(path: str, accept: str | None = None, **params: Any) -> Call:
    """Read something; parameters that are None are not sent."""
    return Call("GET", path, _given(params), {} if accept is None else {"Accept": accept})


def delete(path: str, **params: Any) -> Call:
    """Delete something."""
    return Call("DELETE", path, _given(params))


def post(path: str, body: Mapping[str, Any]) -> Call:
    """Send JSON."""
    return Call("POST", path, headers={"Content-Type": JSON}, content=as_json(body))


def patch(path: str, body: Mapping[str, Any]) -> Call:
    """Send what is to be changed."""
    return Call("PATCH", path, headers={"Content-Type": JSON}, content=as_json(body))


def upload(path: str, file: bytes, media_type: str = SAFETENSORS.media_type, **params: Any) -> Call:
    """Send a file of tensors."""
    return Call("POST", path, _given(params), {"Content-Type": media_type}, file)


def put(path: str, file: bytes, **params: Any) -> Call:
    """Bring a file of tensors, which makes a version each time."""
    return Call("PUT", path, _given(params), {"Content-Type": SAFETENSORS.media_type}, file, repeatable=False)


def as_json(body: Mapping[str, Any]) -> bytes:
    """The body as JSON, in which arrays are nested lists, and what the service made stands for itself by its id."""
    return orjson.dumps(body, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: Any) -> Any:
    if isinstance(value, Dataset):  # which only stands where data is described
        return {"kind": "dataset", "id": value.id}
    if isinstance(value, BaseModel) and hasattr(value, "id"):
        return value.id
    if arrays.is_array(value):
        return arrays.to_numpy(value, None).tolist()
    raise TypeError  # of which orjson says what it was


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}
