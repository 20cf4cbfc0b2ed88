"""`lora serve`: settings, app and server, from start to a clean end."""

import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from service import logs
from service.api.runners import create_nursery
from service.api.stores import create_store
from service.cli.statuses import tell
from service.jobs.nursery import Nursery
from service.settings import PREFIX, Settings, SettingsError, load

KEY = "LORA_API_KEY"
UNGUARDED = (
    "LORA_HOST is {host!r}, where others can reach the service, and it asks nobody for a key: set LORA_API_KEYS to "
    "what `openssl rand -hex 32` prints, or say with --insecure (LORA_INSECURE=1) that something else keeps others out"
)
READY = "lora-service is ready at "
MEMORY_ONLY = "models and jobs live in memory only: they end with this process"
DURABLE = "whatever is acknowledged is on the disk: models and jobs outlive this process"


def serve(
    host: str | None,
    port: int | None,
    *,
    insecure: bool | None = None,
    processes: int | None = None,
    fd: int | None = None,
    as_json: bool = False,
) -> int:
    """Run the service, with which the process ends.

    Args:
        fd: the descriptor of a socket that listens already; by default one is made.

    Raises:
        SettingsError: where it cannot start.
    """
    settings = load(host=host, port=port, insecure=insecure, processes=processes)
    if fd is None:
        must_be_free(settings.host, settings.port)
    must_be_guarded(settings)
    logs.configure(settings.log_level)
    if KEY in os.environ and settings.api_keys is None:  # whoever sets it may think so
        tell(
            f"{KEY} is what commands send; a service asks for the keys that LORA_API_KEYS lists, and this one for none"
        )
    if settings.processes > 1:
        return _several(settings, as_json=as_json)
    with create_nursery(settings) as nursery:  # which imports torch while this process does
        _run(settings, nursery, fd, as_json)
    # What a thread still computes is of no use to anyone any longer, and Python would wait for it.
    sys.stdout.flush()
    os._exit(0)


def must_be_guarded(settings: Settings) -> None:
    """Raise SettingsError where others could reach a service that asks for no key, unless that is wanted."""
    if settings.api_keys is None and not settings.insecure and not _only_here(settings.host):
        raise SettingsError(UNGUARDED.format(host=settings.host[:60]))


def _only_here(host: str) -> bool:
    """Whether an address is reached from this machine alone; one that is none is for `must_be_free` to refuse."""
    try:
        found = {str(address[0]) for *_, address in socket.getaddrinfo(host, None)}
    except OSError:
        return True
    return all(ip_address(each.partition("%")[0]).is_loopback for each in found)


def must_be_free(host: str, port: int) -> None:
    """Raise SettingsError unless the service could listen there."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(address)
    except OSError as error:
        where = f"LORA_HOST is {host[:60]!r} and LORA_PORT is {port}"
        raise SettingsError(f"{where}, and nothing can listen there: {error.strerror}") from None


def _several(settings: Settings, *, as_json: bool) -> int:
    """Run processes side by side until they are told to end."""
    from service.cli.processes import processes

    with processes(settings) as started:
        told = started.ready()
        if not told:
            return 1
        facts = {**told[0], "settings": {**told[0]["settings"], f"{PREFIX}PROCESSES": settings.processes}}
        if as_json:
            print(json.dumps(facts), flush=True)
        else:
            for line in [*summary(facts["settings"], durable=True), f"{READY}{facts['url']}"]:
                print(line, flush=True)
        started.run()
    return 0


def _run(settings: Settings, nursery: Nursery, fd: int | None, as_json: bool) -> None:
    store = create_store(settings)
    # By default numpy's threads spin for some time when a product is done, and keep a core from whatever else waits.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    # Here and not above: torch takes seconds to import, and a wrong setting should not.
    with _importing(nursery):
        from service.api.app import create_app, create_engine
        from service.api.server import server_of

    engine = create_engine(settings, nursery, store)
    facts = in_force(settings, engine.device, engine.store.name)
    if not as_json:
        for line in summary(facts, durable=engine.store.durable):
            print(line, flush=True)

    def ready(url: str) -> None:
        told = {"url": url, "durable": engine.store.durable, "settings": facts}
        print(json.dumps(told) if as_json else f"{READY}{url}", flush=True)

    app = create_app(settings, engine)
    gc.freeze()  # a full collection would go through all that torch has imported, and hold up every request for 0.2 s
    server_of(app, settings, ready, engine.drain, engine.announce_leave).run(
        None if fd is None else [socket.socket(fileno=fd)]
    )


@contextmanager
def _importing(nursery: Nursery) -> Iterator[None]:
    """Let Ctrl-C end the process meanwhile: torch may swallow the exception that it otherwise is, and go on."""

    def leave(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        nursery.stop()
        os._exit(128 + signal.SIGINT)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def in_force(settings: Settings, device: str, store: str) -> dict[str, Any]:
    """The variables that would give these settings, with what they amount to here."""
    values = {**settings.model_dump(), "device": f"{settings.device} ({device})", "database_url": store}
    return {f"{PREFIX}{name.upper()}": value for name, value in values.items()}


def summary(facts: dict[str, Any], *, durable: bool) -> list[str]:
    """The settings in force, one line each, and what becomes of what is acknowledged."""
    return [*(f"{name}={value}" for name, value in facts.items()), DURABLE if durable else MEMORY_ONLY]
