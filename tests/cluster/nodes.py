"""A Ray cluster on this machine, made by Ray's own test utilities: `python -m tests.cluster.nodes COUNT`.

Prints its addresses, loses its last node or gets one more as the lines say that it reads, and ends with its input.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_hex

from tests.running import DEADLINE_SECONDS, free_port

ADDRESS = "ray is at "
# A cluster runs whatever it is sent by whoever knows its token.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ.setdefault("RAY_AUTH_TOKEN", token_hex(16))
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = (
    "0"  # else it loses some of the processes that it forks for who comes by ray://
)
LOSE, ADD = "lose", "add"


@dataclass(frozen=True)
class Nodes:
    """A cluster that runs: where it is for its nodes, and from outside of it; and how to harm it."""

    address: str
    outside: str
    process: "subprocess.Popen[str]"

    def lose(self) -> None:
        """End the last node as if its machine had lost power."""
        self._do(LOSE)

    def add(self) -> None:
        """Add a node."""
        self._do(ADD)

    def _do(self, command: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == command


@contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """A cluster of so many nodes, with one CPU each."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.nodes", str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = next((line for line in process.stdout if line.startswith(ADDRESS)), None)
        assert told is not None, "Ray did not start"
        yield Nodes(*told.removeprefix(ADDRESS).split(), process)
    finally:
        process.stdin.close()
        try:
            process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def main(count: int) -> None:
    """Be the cluster."""
    from ray.cluster_utils import Cluster

    each = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    outside = free_port()
    head = {**each, "include_dashboard": False, "ray_client_server_port": outside}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    others = [cluster.add_node(**each) for _ in range(count - 1)]
    print(f"{ADDRESS}{cluster.address} ray://127.0.0.1:{outside}", flush=True)
    for command in map(str.strip, sys.stdin):
        if command == LOSE:
            cluster.remove_node(others.pop(), allow_graceful=False)
        else:
            others.append(cluster.add_node(**each))
        print(command, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
