"""The service over HTTP, for Python: what you call is what the engine does. Imports no torch."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from service.codecs import npy, safetensors
from service.codecs.npy import NPY

Json = dict[str, Any]

TIMEOUT_SECONDS = 60.0


class Problem(Exception):
    """The service said no.

    Attributes:
        slug: the last part of the problem's type, such as `model-not-found`.
        status: the HTTP status.
        body: the whole problem (RFC 9457).
    """

    def __init__(self, body: Json, status: int) -> None:
        super().__init__(f"{body.get('title', 'error')}: {body.get('detail', '')} ({status})")
        self.body = body
        self.status = status
        self.slug = str(body.get("type", "")).rpartition("/")[2]


class Client:
    """A connection to a running service.

    Raises:
        Problem: from every method, when the service refuses.
        ConnectionError: when it cannot be reached.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", timeout: float = TIMEOUT_SECONDS) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def create(self, **settings: Any) -> Json:
        """A new model; `settings` are the fields of `POST /models`."""
        return self._json("POST", "/models", json=settings)

    def model(self, model_id: str) -> Json:
        """The model as it is now."""
        return self._json("GET", f"/models/{model_id}")

    def delete(self, model_id: str, *, force: bool = False) -> None:
        """Delete a model, with `force` also while it trains."""
        self._send("DELETE", f"/models/{model_id}", params={"force": force})

    def train(self, model_id: str, *, wait: int | None = None, **plan: Any) -> Json:
        """Launch a job; `plan` are the fields of `POST /models/{id}/train`. With `wait`, up to so many seconds."""
        headers = {} if wait is None else {"Prefer": f"wait={wait}"}
        return self._json("POST", f"/models/{model_id}/train", json=plan, headers=headers, timeout=TIMEOUT_SECONDS + 5)

    def job(self, job_id: str) -> Json:
        """The job as it is now."""
        return self._json("GET", f"/jobs/{job_id}")

    def cancel(self, job_id: str) -> Json:
        """The job, cancelled unless it had ended."""
        return self._json("POST", f"/jobs/{job_id}/cancel")

    def events(self, job_id: str, after: int = 0) -> Iterator[tuple[str, Json]]:
        """The events of a job as they happen, (kind, data), to the last."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._http.stream("GET", f"/jobs/{job_id}/events", headers=headers, timeout=None) as answer:
            if answer.is_error:
                answer.read()
                raise _problem(answer)
            kind = ""
            for line in answer.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    kind = value
                elif field == "data":
                    yield kind, orjson.loads(value)

    def forward(self, model_id: str, inputs: ArrayLike) -> NDArray[np.float32]:
        """The model's outputs (…, out_features) for inputs (…, in_features), sent as bytes."""
        body = npy.dump(np.asarray(inputs, dtype=np.float32))
        headers = {"Content-Type": NPY.media_type}
        answer = self._send("POST", f"/models/{model_id}/forward", content=body, headers=headers)
        return npy.load(answer.content).astype(np.float32, copy=False)

    def weights(self, model_id: str) -> dict[str, NDArray[np.generic]]:
        """All tensors of a model by name."""
        return safetensors.load(self._send("GET", f"/models/{model_id}/weights").content)

    def _json(self, method: str, path: str, **request: Any) -> Json:
        body: Json = self._send(method, path, **request).json()
        return body

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise ConnectionError(f"{self._http.base_url} does not answer: {error}") from error
        if answer.is_error:
            raise _problem(answer)
        return answer


def _problem(answer: httpx.Response) -> Problem:
    try:
        body = answer.json()
    except ValueError:  # what answered is not the service, or not the part of it that speaks JSON
        body = {"title": answer.reason_phrase, "detail": answer.text[:200]}
    return Problem(body, answer.status_code)
