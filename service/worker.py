"""One training process: takes a task from its pipe, trains, and says how it goes. `python -m service.worker`."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from service.codecs.message import pack, unpack
from service.lora.layer import LoRALinear
from service.training import datasets
from service.training.fit import Diverged, Fitted, fit
from service.training.plan import Plan, from_dict

NICENESS = 10
REPORT_SECONDS = 0.02  # finished epochs are told together when they come faster than this

LAYER = frozenset({"weight", "bias", "A", "B", "own_bias"})

Message = tuple[dict[str, Any], dict[str, NDArray[Any]]]

log = logging.getLogger(__name__)


class Say(Protocol):
    """Send the server a message."""

    def __call__(self, value: dict[str, Any], arrays: dict[str, NDArray[Any]] | None = None) -> None: ...


class Inbox:
    """What the server says, read by a thread of its own so that a cancel arrives while a task runs.

    When the server's end closes, however that happened, the process has no one to work for and ends. It ends as well
    when it cannot take in what the server says: nobody would ever learn of the task.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._tasks: SimpleQueue[Message] = SimpleQueue()
        self._cancelled: str | None = None  # one is enough: a worker is told of its own task alone
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        status = 0
        try:
            while True:
                header, tensors = unpack(self._pipe.recv_bytes())
                if header["do"] == "cancel":
                    self._cancelled = header["job"]
                else:
                    self._tasks.put((header, tensors))
        except (EOFError, OSError):
            pass
        except BaseException:
            log.exception("a message of the server could not be read")
            status = 1
        finally:
            os._exit(status)

    def next(self) -> Message:
        """The next task, when there is one."""
        return self._tasks.get()

    def cancelled(self, job_id: str) -> bool:
        """Whether a task is no longer wanted."""
        return job_id == self._cancelled


def perform(task: Message, device: str, cancelled: Callable[[], bool], say: Say) -> None:
    """Train as the task says, telling of finished epochs as they come, and at last how it ended."""
    header, arrays = task
    try:
        plan, layer, rows = prepare(header, {name: torch.from_numpy(array) for name, array in arrays.items()}, device)
        fitted = follow(fit(layer, *rows, plan, header["dropout"]), cancelled, say)
        if fitted is None:
            say({"say": "cancelled"})
        else:
            adapter = {name: tensor.cpu().numpy() for name, tensor in fitted.layer.adapter().items()}
            say({"say": "succeeded", "loss": fitted.loss}, adapter)
    except Diverged:
        say(failure("diverged", "a loss or a weight is no longer finite as float32; a lower lr may help"))
    except Exception as error:
        if not out_of_memory(error):
            log.exception("a training broke")
            say(failure("internal-error", "the training broke inside the service; the log holds its trace"))
        else:
            say(failure("out-of-memory", "the training did not fit in memory; fewer rows or a smaller layer may"))


def prepare(header: dict[str, Any], tensors: dict[str, Tensor], device: str) -> tuple[Plan, LoRALinear, datasets.Rows]:
    """The plan, the layer and the rows of a task, on the device."""
    placed: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors.items() if name in LAYER}
    layer = LoRALinear(**{"bias": None, **placed}, scaling=header["scaling"])
    plan = from_dict(header["plan"])
    return plan, layer, datasets.load(plan.data, layer, tensors)


def follow(steps: Generator[float | None, None, Fitted], cancelled: Callable[[], bool], say: Say) -> Fitted | None:
    """Drive a run to its end, or to the first step after a cancel (None); losses are told as they come."""
    losses: list[float] = []
    due = time.monotonic() + REPORT_SECONDS
    try:
        while not cancelled():
            loss = next(steps)
            if loss is not None:
                losses.append(loss)
            if losses and time.monotonic() >= due:
                say({"say": "losses", "losses": losses})
                losses, due = [], time.monotonic() + REPORT_SECONDS
        return None
    except StopIteration as end:
        fitted: Fitted = end.value
        return fitted
    finally:
        if losses:
            say({"say": "losses", "losses": losses})


def failure(reason: str, detail: str) -> dict[str, Any]:
    """The message that ends a task which went wrong."""
    return {"say": "failed", "reason": reason, "detail": detail}


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; on the CPU torch says so with a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def warm_up() -> None:
    """Train once in small, so that the first task does not wait for what torch sets up on first use."""
    layer = LoRALinear(torch.zeros(2, 2), None, torch.zeros(1, 2), torch.zeros(2, 1), scaling=1.0)
    for _ in fit(layer, torch.zeros(2, 2), torch.zeros(2, 2), Plan(epochs=1, batch_size=1, seed=0)):
        pass


def main(device: str, threads: int, fd: int) -> None:
    """Work for the server at the other end of a pipe until that end closes."""
    os.nice(NICENESS)
    torch.set_num_threads(threads)
    pipe = Connection(fd)
    inbox = Inbox(pipe)
    warm_up()

    def say(value: dict[str, Any], arrays: dict[str, NDArray[Any]] | None = None) -> None:
        with suppress(OSError):  # the server's end has closed, so the inbox is about to end this process
            pipe.send_bytes(pack(value, arrays))

    say({"say": "ready"})
    while True:
        task = inbox.next()
        job_id = task[0]["job"]
        perform(task, device, partial(inbox.cancelled, job_id), say)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
