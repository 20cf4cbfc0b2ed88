"""A cluster is reached, also where it fails once."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.running import until


def forked(address: str) -> set[int]:
    """The processes of a cluster that are there for who comes from outside."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            said = (process / "cmdline").read_bytes()
            if b"specific-server" in said and address.encode() in said:
                found.add(int(process.name))
    return found


def test_who_comes_from_outside_comes_again_where_its_process_died_at_birth(cluster):
    earlier = forked(cluster.address)
    code = "import sys; from service.cluster.connecting import connect; connect(sys.argv[1])"
    coming = subprocess.Popen([sys.executable, "-c", code, cluster.outside])
    try:
        until(lambda: forked(cluster.address) - earlier)
        for process in forked(cluster.address) - earlier:
            os.kill(process, signal.SIGKILL)
        assert coming.wait(120) == 0
        assert len(forked(cluster.address) - earlier) == 1
    finally:
        coming.kill()
        coming.wait()
