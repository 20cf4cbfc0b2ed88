"""The far end of a relay: trains on whichever node Ray has found for it."""

import logging
import os
from queue import Empty, SimpleQueue
from typing import Any

from numpy.typing import NDArray

from service.codecs.message import pack, unpack

HEAR_SECONDS = 5.0  # whoever listens is answered after so long, even if nothing was said

log = logging.getLogger(__name__)


class Trainer:
    """A Ray actor that does one task after another; `train`, `hear` and `tell` run side by side.

    Messages are those of a worker's pipe.
    """

    def __init__(self, device: str) -> None:
        # Here, on the node: the relay, which names this class, need not have torch in memory.
        from service.task import Orders, perform, warm_up

        self._device, self._perform = device, perform
        self._orders = Orders()
        self._said: SimpleQueue[tuple[bytes, bool]] = SimpleQueue()  # and whether it is the last of a task
        warm_up()

    def train(self, request: bytes) -> None:
        """Do a task. What it says is for `hear`, which alone could tell of an error: so one ends the process."""
        try:
            orders = self._orders
            self._perform(unpack(request), self._device, orders.cancelled, self._say, lambda: orders.pausing)
        except BaseException:
            log.exception("a task could not be taken in")
            os._exit(1)

    def hear(self) -> tuple[list[bytes], bool]:
        """What was said since it was last asked for, as soon as there is something; and whether the task is done."""
        heard, done = [], False
        try:
            message, done = self._said.get(timeout=HEAR_SECONDS)
            heard.append(message)
            while not done:
                message, done = self._said.get_nowait()
                heard.append(message)
        except Empty:
            pass
        return heard, done

    def tell(self, order: bytes) -> None:
        """Take in what is wanted of the task meanwhile."""
        self._orders.hear(unpack(order)[0])

    def _say(self, value: dict[str, Any], arrays: dict[str, NDArray[Any]] | None = None) -> None:
        self._said.put((bytes(pack(value, arrays)), value["say"] == "done"))
