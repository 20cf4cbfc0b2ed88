"""`lora serve`: settings, app and server, from start to a clean end."""

import logging
import sys

from service.settings import Settings, SettingsError, load

READY = "lora-service is ready at "
MEMORY_ONLY = "models and jobs live in memory only: they end with this process"


def serve(host: str | None, port: int | None) -> int:
    """Run the service; the exit status."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        settings = load(host=host, port=port)
        _run(settings)
    except SettingsError as error:
        print(f"lora: {error}", file=sys.stderr)
        return 2
    return 0


def _run(settings: Settings) -> None:
    # Here and not above: torch takes a second to import, and a wrong setting should not.
    from service.api.app import create_app, create_engine
    from service.api.server import Server, config

    engine = create_engine(settings)
    for line in summary(settings, engine.device):
        print(line, flush=True)
    app = create_app(settings, engine)
    server = Server(
        config(app, settings.host, settings.port, settings.grace_seconds),
        ready=lambda url: print(f"{READY}{url}", flush=True),
        leaving=engine.drain,
    )
    server.run()


def summary(settings: Settings, device: str) -> list[str]:
    """The settings in force, one line each."""
    values = {**settings.model_dump(), "device": f"{settings.device} ({device})"}
    return [*(f"LORA_{name.upper()}={value}" for name, value in values.items()), MEMORY_ONLY]
