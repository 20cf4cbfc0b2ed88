"""Jobs as progress bars, for as long as they run."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from service.client import Job


def follow(console: Console, jobs: Mapping[str, Job]) -> list[Job]:
    """Show a progress bar for each named job until all have succeeded; the jobs as they are then.

    Raises:
        JobFailed: for one that has not.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(len(jobs)) as threads:

        def show(job: Job, bar: TaskID) -> None:
            for event in job.events():
                if event.kind == "epoch":
                    progress.update(bar, completed=event.data["epoch"], loss=f"{event.data['loss']:.4f}")

        bars = [progress.add_task(name, total=job.epochs, loss="-") for name, job in jobs.items()]
        list(threads.map(show, jobs.values(), bars))
    return [job.wait(progress=False, check=True) for job in jobs.values()]
