"""How far a job is, shown to whoever looks on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock

from service.client.record import Record
from service.client.sse import Event

Show = Callable[[Event], None]

_only_bar = Lock()  # two of them would write over each other


@contextmanager
def shown(job: Record, wanted: bool | None) -> Iterator[Show]:
    """What to tell each event, so that a bar shows it; `wanted` None: where somebody looks on."""
    if wanted is False or not _somebody_looks_on() or not _only_bar.acquire(blocking=False):
        yield lambda event: None
        return
    try:
        with _bar(job) as show:
            yield show
    finally:
        _only_bar.release()


def _somebody_looks_on() -> bool:
    notebook = "ipykernel" in sys.modules and find_spec("ipywidgets") is not None
    return notebook or (sys.stderr is not None and sys.stderr.isatty())


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
