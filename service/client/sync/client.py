"""The whole client: everything that the service does."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import httpx

from service.client.calls import bearer, get
from service.client.problems import Problem
from service.client.sync.bases import Bases
from service.client.sync.connection import Connection
from service.client.sync.datasets import Datasets
from service.client.sync.forwards import Forwards
from service.client.sync.sweeps import Sweeps
from service.client.sync.training import Training
from service.client.sync.weights import Weights
from service.schemas.answers import Limits

URL = "http://127.0.0.1:8000"
TIMEOUT_SECONDS = 60.0
MAX_RETRIES = 2


class Client(Weights, Training, Forwards, Bases, Datasets, Sweeps):
    """A running service; what you call is what the engine does.

    Wherever a model, a job or the like is wanted, its id does as well.

    Args:
        url: where the service is; a path in it goes before those of the service.
        api_key: sent as `Authorization: Bearer …`.
        headers: sent with every request.
        timeout: seconds for each of connecting, sending and waiting for an answer; None waits for ever.
        max_retries: how often a request is sent again after a lost connection, or when the service has too much to do.
        http_client: used instead of one of its own, for proxies, certificates and the like; whoever made it closes it.

    Raises:
        Problem: from every method, when the service refuses.
        Unreachable: when it does not answer.
        ValueError: for a key that no header can hold.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = TIMEOUT_SECONDS,
        max_retries: int = MAX_RETRIES,
        http_client: httpx.Client | None = None,
    ) -> None:
        self._connection = Connection(url, {**bearer(api_key), **(headers or {})}, timeout, max_retries, http_client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.url!r})"

    def limits(self) -> Limits:
        """Every limit in force, with its unit and the setting that moves it."""
        return self._connection.read(Limits, get("/limits"))

    def ready(self) -> bool:
        """Whether the service takes work now."""
        try:
            self._connection.send(get("/readyz").now())
        except Problem as problem:
            if problem.status != httpx.codes.SERVICE_UNAVAILABLE:
                raise
            return False
        return True
