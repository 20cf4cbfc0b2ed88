"""Put the app together: engine, routes, errors, documentation, door."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Lifespan

from service.api import openapi, problems
from service.api.cors import crossed
from service.api.door import Door
from service.api.forward import Forward
from service.api.fresh import Fresh
from service.api.guard import Guard
from service.api.intake import Intake
from service.api.metrics import Metrics
from service.api.routes import ROUTERS
from service.api.stores import create_store
from service.engine import Capacity, Engine
from service.engine.capacity import MIB
from service.errors import ServiceError
from service.jobs.nursery import Nursery
from service.models.store import Store
from service.serving.window import Window
from service.settings import Settings, SettingsError, listed, usable_cores

RETRIES = 3  # nodes of a cluster come and go; what loses every worker in turn is at fault itself


def create_engine(settings: Settings, nursery: Nursery, store: Store | None = None) -> Engine:
    """The engine that the settings describe, not started yet; without a store that makes the one they name.

    Args:
        nursery: as `create_nursery` makes it; whoever did that ends it.

    Raises:
        SettingsError: for a device that is not there, or what `create_store` refuses.
    """
    torch.set_num_threads(usable_cores())  # torch itself does not know of a container's quota
    store = store or create_store(settings)
    try:
        return Engine(_capacity(settings), _device(settings), store, nursery)
    except ServiceError as error:
        store.close()
        raise SettingsError(f"what the database holds cannot be taken up: {error.detail}") from None
    except SettingsError:
        store.close()
        raise


def _device(settings: Settings) -> str:
    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise SettingsError("LORA_DEVICE is 'cuda', and torch finds no CUDA device here; use auto or cpu")
    return "cuda" if cuda and settings.device != "cpu" else "cpu"


def _capacity(settings: Settings) -> Capacity:
    return Capacity(
        memory_bytes=settings.memory_mib * MIB,
        layer_bytes=settings.layer_mib * MIB,
        train_bytes=settings.train_mib * MIB,
        moments_bytes=settings.moments_mib * MIB,
        together_max=settings.together_max,
        states_bytes=settings.states_mib * MIB,
        max_datasets=settings.max_datasets,
        forward_bytes=settings.binary_body_mib * MIB,
        max_models=settings.max_models,
        queue_max=settings.queue_max,
        key_queue_max=settings.key_queue_max,
        keep_jobs=settings.keep_jobs,
        keep_versions=settings.keep_versions,
        weights_bytes=settings.weights_cache_mib * MIB,
        checkpoint_seconds=settings.checkpoint_seconds,
        merged_bytes=settings.merged_cache_mib * MIB,
        window=Window(max_rows=settings.batch_max_rows, wait_seconds=settings.batch_wait_ms / 1_000),
        retries=RETRIES if settings.runner == "ray" else 0,
        workers=settings.workers,
        worker_threads=settings.worker_threads,
    )


def create_app(settings: Settings, engine: Engine) -> ASGIApp:
    """The whole service as an ASGI app, which starts and closes the engine with its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with engine:
            yield

    app = create_api(lifespan)
    metrics = Metrics(engine)
    app.state.engine, app.state.settings, app.state.metrics, app.state.streams = engine, settings, metrics, 0
    door = Door(
        app,
        Forward(engine, settings),
        metrics,
        Guard(settings),
        Intake(settings.bodies_mib * MIB),
        Fresh(engine),
    )
    return crossed(door, listed(settings.allowed_origins))


def create_api(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The routes with their documentation, which can be read without an engine behind them."""
    app = FastAPIOffline(
        title=openapi.TITLE,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    problems.install(app, [route for router in ROUTERS for route in router.routes])
    openapi.install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
