"""HAProxy as the Compose file starts it, but for addresses: before servers of this machine."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.programs import needs
from tests.running import free_port, until

CONFIGURATION = Path(__file__).parents[2] / "deploy/haproxy.cfg"


def configured(port: int, servers: list[int]) -> str:
    """The configuration with the port of the door, and those of the servers in place of a name that Docker knows."""
    text = CONFIGURATION.read_text().partition("resolvers docker\n")[0]
    lines = "\n".join(f"    server replica{place} 127.0.0.1:{each}" for place, each in enumerate(servers))
    text, templates = re.subn(r"^    server-template .*$", lines, text, flags=re.MULTILINE)
    text, binds = re.subn(r"bind :\d+", f"bind 127.0.0.1:{port}", text)
    text, names = re.subn(r" resolvers docker init-addr none", "", text)
    assert (templates, binds, names) == (1, 1, 1)
    return text


@contextmanager
def balancer(folder: Path, servers: list[int]) -> Iterator[str]:
    """The URL of a load balancer before servers on these ports."""
    needs("haproxy")
    port, file = free_port(), folder / "haproxy.cfg"
    file.write_text(configured(port, servers))
    process = subprocess.Popen(["haproxy", "-db", "-f", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port))
        assert process.poll() is None
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
