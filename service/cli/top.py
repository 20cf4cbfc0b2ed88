"""What a service does right now, read again and again."""

import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from rich.console import Console
from rich.live import Live

from service.cli import printing, prometheus
from service.cli.calling import Place
from service.cli.keyboard import pressed, raw_keys
from service.cli.view import View, frame
from service.client import Client, Job, Problem, Unreachable
from service.errors import JobNotFound

SHOWN_JOBS = 20
HISTORY = 16  # what a tile has room for
ONCE_SECONDS = 0.5
WIDTH = 120  # off a terminal, so that no id is cut
QUIT = {"q", "Q", "\x1b"}


def once(place: Place, client: Client) -> None:
    """Print one view, of two readings that are half a second apart."""
    view = looked(place, client, View(place.url))
    time.sleep(ONCE_SECONDS)
    view = looked(place, client, view)
    if place.as_json:
        printing.document({**view.numbers, "jobs": view.jobs})
    else:
        Console(width=None if printing.for_a_reader() else WIDTH).print(frame(view))


def watch(place: Place, client: Client, seconds: float) -> None:
    """Show a view of the service on the whole terminal, a new one after so many seconds, until q or Ctrl-C."""
    view = looked(place, client, View(place.url))
    live = Live(frame(view), screen=True, auto_refresh=False)
    with suppress(KeyboardInterrupt), raw_keys(), ExitStack() as stack:
        stack.callback(live.stop)  # before it starts: a Ctrl-C while it does so leaves no foreign screen behind either
        live.start(refresh=True)
        while not QUIT & set(pressed(seconds)):
            view = looked(place, client, view)
            live.update(frame(view), refresh=True)


def looked(place: Place, client: Client, view: View) -> View:
    """The view after another look; where the service does not answer, or says no, the last one, which says so.

    Raises:
        Unreachable, Problem: at the first look.
    """
    try:
        now = prometheus.read(place.text("/metrics"), time.monotonic())
        jobs = _jobs(client, view.jobs)
    except (Unreachable, Problem) as error:
        if view.reading is None:
            raise
        return replace(view, trouble=str(error))
    numbers = _numbers(view.reading, now)
    return View(
        view.url,
        now,
        numbers,
        jobs,
        _longer(view.forwards, numbers["forwards_per_second"]),
        _longer(view.memory, numbers["memory_bytes"]),
    )


def _jobs(client: Client, before: list[Job]) -> list[Job]:
    """Those under way, and those that were so at an earlier look and have ended since."""
    active = list(islice(chain(client.jobs(state="running"), client.jobs(state="queued")), SHOWN_JOBS))
    seen = {job.id for job in active}
    past = [job if job.ended else _again(client, job) for job in before if job.id not in seen]
    return [*active, *filter(None, past)][:SHOWN_JOBS]


def _again(client: Client, job: Job) -> Job | None:
    """The job as it is now, unless somebody has deleted it."""
    try:
        return client.job(job)
    except JobNotFound:
        return None


def _numbers(before: prometheus.Reading | None, now: prometheus.Reading) -> dict[str, Any]:
    named = {
        "running": now.value("lora_jobs", state="running"),
        "queued": now.value("lora_jobs", state="queued"),
        "models": now.value("lora_models"),
        "workers_ready": now.value("lora_workers_ready"),
        "memory_bytes": now.value("lora_memory_bytes"),
        "forwards": now.value("lora_forwards_total"),
        "refused": now.value("lora_shed_total"),
    }
    return {name: int(value) for name, value in named.items()} | {
        "forwards_per_second": prometheus.rate(before, now, "lora_forwards_total") if before else 0.0,
        "latency_p50_seconds": prometheus.quantile(0.5, before, now),
        "latency_p99_seconds": prometheus.quantile(0.99, before, now),
    }


def _longer(course: tuple[float, ...], value: float) -> tuple[float, ...]:
    return (*course, value)[-HISTORY:]
