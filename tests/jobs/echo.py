"""A small worker process that does as it is told; the last argument is its end of the pipe.

Messages are lines of orders: `say X`, `exit N` and `deaf` (takes no notice of being asked to end). The first
arguments may be a file that must exist for it to start.
"""

import os
import signal
import sys
from multiprocessing.connection import Connection


def main(fd: int) -> None:
    pipe = Connection(fd)
    pipe.send_bytes(b"ready")
    while True:
        for order in pipe.recv_bytes().splitlines():
            verb, _, rest = order.partition(b" ")
            if verb == b"say":
                pipe.send_bytes(rest)
            elif verb == b"exit":
                os._exit(int(rest))
            elif verb == b"deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    if len(sys.argv) > 2 and not os.path.exists(sys.argv[1]):
        sys.exit(1)
    try:
        main(int(sys.argv[-1]))
    except (EOFError, OSError):
        os._exit(0)
