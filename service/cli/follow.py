"""Jobs as they run: a bar for each on a terminal, a line for each epoch elsewhere, or their events as lines of JSON."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rich.console import Console

from service.cli.printing import line_of_json
from service.cli.statuses import tell
from service.client import Event, Job
from service.client.progress import Show, bar, bars


def watch(job: Job, *, as_json: bool) -> Job:
    """Show a job until it has succeeded; the job as it is then. Ctrl-C leaves it running, and says so.

    Raises:
        JobFailed: for one that has not succeeded.
    """
    try:
        with _lines_of_json(job) if as_json else _shown(job) as show:
            for event in job.events():
                show(event)
    except KeyboardInterrupt:
        tell(f"{job.id} goes on; `lora show {job.id} --follow` comes back to it, `lora cancel {job.id}` ends it")
        raise
    return job.wait(progress=False, check=True)


def follow(console: Console, jobs: Mapping[str, Job]) -> list[Job]:
    """Show a bar for each named job until all have succeeded; the jobs as they are then.

    Raises:
        JobFailed: for one that has not.
    """
    with bars(console) as progress, ThreadPoolExecutor(len(jobs)) as threads:

        def run(job: Job, show: Show) -> None:
            for event in job.events():
                show(event)

        list(threads.map(run, jobs.values(), [bar(progress, name, job) for name, job in jobs.items()]))
    return [job.wait(progress=False, check=True) for job in jobs.values()]


@contextmanager
def _lines_of_json(job: Job) -> Iterator[Show]:
    line_of_json({"id": 0, "event": "accepted", "data": job})
    yield lambda event: line_of_json({"id": event.id, "event": event.kind, "data": event.data})


@contextmanager
def _shown(job: Job) -> Iterator[Show]:
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda event: None if event.kind == "done" else console.print(_line(event), soft_wrap=True)
        return
    with bars(console) as progress:
        yield bar(progress, None, job)


def _line(event: Event) -> str:
    if event.kind != "epoch":
        reason = event.data.get("reason")
        return f"{event.data['state']} ({reason})" if reason else str(event.data["state"])
    return "epoch {epoch}/{epochs}  loss {loss:.6g}".format(**event.data)
