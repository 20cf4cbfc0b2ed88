"""The service over HTTP, for Python: what you call is what the engine does. Imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from service.client.folder import adapter_modules
from service.client.problems import JobFailed, Problem, Unreachable
from service.client.sse import Event
from service.client.sync.client import Client
from service.client.sync.job import Job
from service.schemas.answers import Base, Model
from service.schemas.training import Dataset, Sweep

if TYPE_CHECKING:
    from service.client.aio.client import AsyncClient
    from service.client.aio.job import AsyncJob
else:
    # The twin brings asyncio along, so it is imported when it is asked for.
    AIO = {"AsyncClient": "service.client.aio.client", "AsyncJob": "service.client.aio.job"}

    def __getattr__(name: str) -> Any:
        if name not in AIO:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(AIO[name]), name)


__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Base",
    "Client",
    "Dataset",
    "Event",
    "Job",
    "JobFailed",
    "Model",
    "Problem",
    "Sweep",
    "Unreachable",
    "adapter_modules",
]
