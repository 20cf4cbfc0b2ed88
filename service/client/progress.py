"""How far a job is, shown to whoever looks on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.client.record import Record
from service.client.sse import Event

Show = Callable[[Event], None]


@contextmanager
def shown(job: Record, wanted: bool | None) -> Iterator[Show]:
    """What to tell each event, so that a bar shows it; `wanted` None: where somebody looks on."""
    if wanted is False or not _somebody_looks_on():
        yield lambda event: None
        return
    with _bar(job) as show:
        yield show


def _somebody_looks_on() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def _bar(job: Record) -> Iterator[Show]:
    """Epochs done, the loss and the time that is left, on the standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    loss, left = TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), loss, left)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(str(job.state), total=job.epochs, loss="-")

        def show(event: Event) -> None:
            if event.kind == "epoch":
                progress.update(bar, completed=event.data["epoch"], loss=f"{event.data['loss']:.4f}")
            else:
                progress.update(bar, description=event.data["state"])

        yield show
