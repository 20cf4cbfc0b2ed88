"""Where the processes that train come from, as the settings say."""

from service.jobs.nursery import Nursery, of_relays, of_workers
from service.settings import Settings


def create_nursery(settings: Settings) -> Nursery:
    """The nursery of the settings' runner, not started yet. Imports no torch, so that it can while others do."""
    if settings.runner == "ray":
        return of_relays(settings.ray_address, settings.worker_gpus)
    return of_workers(settings.worker_threads)
