"""The service over HTTP, for Python: what you call is what the engine does. Imports no torch."""

from service.client.aio.client import AsyncClient
from service.client.aio.job import AsyncJob
from service.client.folder import adapter_modules
from service.client.problems import JobFailed, Problem, Unreachable
from service.client.sse import Event
from service.client.sync.client import Client
from service.client.sync.job import Job
from service.schemas.answers import Base, Model
from service.schemas.training import Dataset, Sweep

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
