"""How far a job is, shown to whoever looks on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING

from service.client.record import Record
from service.client.sse import Event

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Show = Callable[[Event], None]

_only_bar = Lock()  # two of them would write over each other


@contextmanager
def shown(job: Record, wanted: bool | None) -> Iterator[Show]:
    """What to tell each event, so that a bar shows it; `wanted` None: where somebody looks on."""
    if wanted is False or not _somebody_looks_on() or not _only_bar.acquire(blocking=False):
        yield lambda event: None
        return
    try:
        from rich.console import Console

        with bars(Console(stderr=True)) as progress:
            yield bar(progress, None, job)
    finally:
        _only_bar.release()


def _somebody_looks_on() -> bool:
    notebook = "ipykernel" in sys.modules and find_spec("ipywidgets") is not None
    return notebook or (sys.stderr is not None and sys.stderr.isatty())


def bars(console: "Console") -> "Progress":
    """Where epochs done, the loss and the time that is left will be shown."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    loss, left = TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn()
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), loss, left, console=console)


def bar(progress: "Progress", name: str | None, job: Record) -> Show:
    """What to tell each event of a job, whose bar has a name, or else that of its state."""
    task = progress.add_task(name or str(job.state), total=job.epochs, loss="-")

    def show(event: Event) -> None:
        if event.kind == "epoch":
            progress.update(task, completed=event.data["epoch"], loss=f"{event.data['loss']:.4f}")
        elif name is None:
            progress.update(task, description=event.data["state"])

    return show
