"""The view of `lora top`: tiles of numbers with their course, and a table of jobs."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.cli.columns import STATES, amount, loss
from service.cli.prometheus import Reading
from service.client import Job
from service.client.record import sparks

BAR_WIDTH = 16


@dataclass(frozen=True)
class View:
    """What was read last, and how it went before."""

    url: str
    reading: Reading | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    forwards: tuple[float, ...] = ()
    memory: tuple[float, ...] = ()
    trouble: str = ""


def frame(view: View) -> RenderableType:
    """The view as rich draws it."""
    numbers = view.numbers
    facts = f"{numbers['models']} models, {numbers['workers_ready']} workers ready, {numbers['refused']} refused"
    head = Text.assemble((view.url, "bold"), f"  {facts}  ", ("q ends it", "dim"))
    return Group(head, Text(view.trouble, "bold red"), _tiles(view), _table(view.jobs))


def _tiles(view: View) -> Table:
    numbers = view.numbers
    tiles = {
        "jobs": (f"{numbers['running']} running", f"{numbers['queued']} queued"),
        "forwards/s": (f"{numbers['forwards_per_second']:.1f}", sparks(list(view.forwards))),
        "latency": tuple(f"{name} {_milliseconds(numbers[f'latency_{name}_seconds'])}" for name in ("p50", "p99")),
        "memory": (amount(numbers["memory_bytes"]), sparks(list(view.memory))),
    }
    grid = Table.grid(expand=True)
    for _ in tiles:
        grid.add_column(ratio=1)
    grid.add_row(*(Panel(Text("\n".join(lines), no_wrap=True), title=title) for title, lines in tiles.items()))
    return grid


def _table(jobs: list[Job]) -> RenderableType:
    if not jobs:
        return Text("no job is under way", "dim")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("job", "state", "epoch", "", "loss", "", "left"):
        table.add_column(heading, no_wrap=bool(heading))  # where it is narrow, what has no heading gives way
    for job in jobs:
        table.add_row(
            job.id,
            Text(str(job.state), STATES.get(str(job.state), "")),
            f"{job.epoch}/{job.epochs}",
            ProgressBar(total=job.epochs, completed=job.epoch, width=BAR_WIDTH),
            loss(job.losses[-1] if job.losses else None),
            Text(sparks(job.losses) if job.losses else "", no_wrap=True, overflow="crop"),
            left(job, datetime.now(UTC)),
        )
    return table


def left(job: Job, now: datetime) -> str:
    """How long a job still takes, by the time that its epochs took; nothing where that is not known."""
    if job.ended or not job.epoch or job.started_at is None:
        return job.reason or ""
    seconds = (now - job.started_at).total_seconds() / job.epoch * (job.epochs - job.epoch)
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1_000 * seconds:.1f} ms"
