"""The service over HTTP, for Python: what you call is what the engine does. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from service.codecs import layer, npy, peft, peft_settings, safetensors
from service.codecs.layer import DType, Layer
from service.codecs.npy import NPY
from service.codecs.safetensors import SAFETENSORS, Tensors

Json = dict[str, Any]

TIMEOUT_SECONDS = 60.0
FILE = {"Content-Type": SAFETENSORS.media_type}
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


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

    def versions(self, model_id: str) -> list[Json]:
        """The versions of a model that are kept, newest first."""
        items: list[Json] = self._json("GET", f"/models/{model_id}/versions")["items"]
        return items

    def roll_back(self, model_id: str, version: int | None = None) -> Json:
        """The model with the weights of an earlier version, by default of the one before, as its next version."""
        return self._json("POST", f"/models/{model_id}/rollback", json={"version": version})

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

    def forward(self, model_id: str, inputs: ArrayLike, version: int | None = None) -> NDArray[np.float32]:
        """The outputs (…, out_features) of a model, or of a `version`, for inputs (…, in_features), sent as bytes."""
        body = npy.dump(np.asarray(inputs, dtype=np.float32))
        headers = {"Content-Type": NPY.media_type}
        query = {} if version is None else {"version": version}
        answer = self._send("POST", f"/models/{model_id}/forward", content=body, headers=headers, params=query)
        return npy.load(answer.content).astype(np.float32, copy=False)

    def weights(self, model_id: str) -> Tensors:
        """All tensors of a model by name."""
        return self._tensors(f"/models/{model_id}/weights")

    def merged(self, model_id: str) -> Tensors:
        """The model as one plain layer: `weight` (out, in) and perhaps `bias` (out,)."""
        return self._tensors(f"/models/{model_id}/merged")

    def analysis(self, model_id: str, beside: str | None = None, layer: int = 0) -> Json:
        """What a model's change of the weight is like, also beside that of another model on its base."""
        return self._json("GET", f"/models/{model_id}/analysis", params={"layer": layer, **_given(**{"with": beside})})

    def upload_base(self, weight: ArrayLike, bias: ArrayLike | None = None, dtype: DType = "float32") -> Json:
        """A base of one's own, weight (out, in) and perhaps bias (out,), kept in this dtype."""
        given = Layer(np.asarray(weight, np.float32), None if bias is None else np.asarray(bias, np.float32), dtype)
        return self._json("POST", "/bases", content=layer.dumped(given), headers=FILE)

    def bases(self) -> Iterator[Json]:
        """Every base, in the order of their ids."""
        cursor: Json = {}
        while True:
            page = self._json("GET", "/bases", params=cursor)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    def base(self, base_id: str) -> Json:
        """The base as it is now."""
        return self._json("GET", f"/bases/{base_id}")

    def base_weights(self, base_id: str) -> Tensors:
        """The tensors of a base: `weight` (out, in) and perhaps `bias` (out,)."""
        return self._tensors(f"/bases/{base_id}/weights")

    def delete_base(self, base_id: str) -> None:
        """Delete a base on which no model stands."""
        self._send("DELETE", f"/bases/{base_id}")

    def upload_dataset(self, x: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None) -> Json:
        """A data set of inputs x (n, in), targets y (n, out) or classes (n,), and perhaps weights of rows (n,)."""
        classes = np.asarray(y).dtype.kind in "iu"
        tensors = {"x": np.asarray(x, np.float32), "y": np.asarray(y, None if classes else np.float32)}
        if weight is not None:
            tensors["weight"] = np.asarray(weight, np.float32)
        return self._json("POST", "/datasets", content=safetensors.dump(tensors), headers=FILE)

    def adapter(self, model_id: str, module: str | None = None) -> tuple[Json, bytes]:
        """What `adapter_config.json` and `adapter_model.safetensors` hold, for one module of a network."""
        path, which = f"/models/{model_id}/adapter", _given(module=module)
        config = self._json("GET", f"{path}/{CONFIG}", params=which)
        return config, self._send("GET", f"{path}/{TENSORS}", params=which).content

    def save_adapter(self, model_id: str, folder: str | Path, module: str | None = None) -> None:
        """Write the two files, with which `peft.PeftModel.from_pretrained` loads the folder."""
        config, tensors = self.adapter(model_id, module)
        Path(folder).mkdir(parents=True, exist_ok=True)
        _write(Path(folder, TENSORS), tensors)
        _write(Path(folder, CONFIG), orjson.dumps(config, option=orjson.OPT_INDENT_2))

    def put_adapter(self, model_id: str, file: str | Path | bytes, module: str | None = None) -> Json:
        """The model with the weights of a file, or of its bytes; `module` is one of `adapter_modules`."""
        body = file if isinstance(file, bytes) else Path(file).read_bytes()
        return self._json(
            "PUT", f"/models/{model_id}/adapter", content=body, headers=FILE, params=_given(module=module)
        )

    def import_adapter(self, folder: str | Path, module: str | None = None, **settings: Any) -> Json:
        """A new model with one module's adapter out of PEFT's folder; `settings` are fields of `POST /models`.

        They go before what the folder says, and hold the sizes of the layer or its `base_id`. No other module is sent.

        Raises:
            Validation, BadSafetensors: for an adapter that no model here can be.
        """
        module, tensors = peft.only(Path(folder, TENSORS).read_bytes(), module)
        asked = peft_settings.settings(orjson.loads(Path(folder, CONFIG).read_bytes()), module)
        model = self.create(**(asked | settings))
        try:
            return self.put_adapter(model["id"], tensors)
        except Problem:
            self.delete(model["id"])
            raise

    def _tensors(self, path: str) -> Tensors:
        return safetensors.load(self._send("GET", path).content)

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


def adapter_modules(file: str | Path) -> list[str]:
    """The modules that an `adapter_model.safetensors` adapts.

    Raises:
        BadSafetensors: for a file that cannot be read.
    """
    return peft.modules(Path(file).read_bytes())


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def _given(**params: str | None) -> dict[str, str]:
    """The parameters of a query that have a value."""
    return {name: value for name, value in params.items() if value is not None}


def _problem(answer: httpx.Response) -> Problem:
    try:
        body = answer.json()
    except ValueError:  # what answered is not the service, or not the part of it that speaks JSON
        body = {"title": answer.reason_phrase, "detail": answer.text[:200]}
    return Problem(body, answer.status_code)
