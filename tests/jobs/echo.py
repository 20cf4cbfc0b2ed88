"""A small worker process that does as it is told; `python -m tests.jobs.echo` is the nursery of such processes.

Messages are lines of orders: `say X`, `exit N` and `deaf` (takes no notice of being asked to end). What comes behind
the file descriptor says how it starts: `needs PATH` and `takes PATH` fail unless the file exists, and `takes` removes
it; `never` is never ready, and `tells` says its arguments rather than that it is ready.
"""

import os
import signal
import sys
from multiprocessing.connection import Connection

from service.jobs.forks import serve


def main(fd: int, how: str = "", *rest: str) -> None:
    pipe = Connection(fd)
    if how == "takes":
        os.remove(rest[0])
    if how == "needs" and not os.path.exists(rest[0]):
        os._exit(1)
    try:
        if how != "never":
            pipe.send_bytes("\n".join(rest).encode() if how == "tells" else b"ready")
        while True:
            obey(pipe, pipe.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def obey(pipe: Connection, orders: bytes) -> None:
    for order in orders.splitlines():
        verb, _, rest = order.partition(b" ")
        if verb == b"say":
            pipe.send_bytes(rest)
        elif verb == b"exit":
            os._exit(int(rest))
        elif verb == b"deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    serve(int(sys.argv[-1]), main)
