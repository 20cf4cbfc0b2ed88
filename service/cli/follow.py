"""Jobs as progress bars, for as long as they run."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from service.client import Client


def follow(client: Client, console: Console, jobs: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Show a progress bar for each named job until all have ended; the jobs as they are then."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(len(jobs)) as threads:

        def show(job: dict[str, Any], bar: TaskID) -> None:
            for kind, event in client.events(job["id"]):
                if kind == "epoch":
                    progress.update(bar, completed=event["epoch"], loss=f"{event['loss']:.4f}")

        bars = [progress.add_task(name, total=job["epochs"], loss="-") for name, job in jobs.items()]
        list(threads.map(show, jobs.values(), bars))
    return [must_succeed(client.job(job["id"])) for job in jobs.values()]


def must_succeed(job: dict[str, Any]) -> dict[str, Any]:
    """The job, which has succeeded."""
    if job["state"] != "succeeded":
        why = job["detail"] or "its events ended before it did"
        raise RuntimeError(f"job {job['id']} is {job['state']}: {why}")
    return job
