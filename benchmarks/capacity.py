"""What a server of several costs in memory, connections and rows, and where the wall stands that they share.

`python -m benchmarks.capacity` starts a PostgreSQL of its own; servers, database and who asks share all cores.
"""

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg

from benchmarks.load import Request, saturated
from benchmarks.replicas import SIZES, children, cpu, server
from tests.postgres import postgres
from tests.running import meanwhile

CLIENTS = 8
SECONDS = 5.0
REST_SECONDS = 20.0
MODELS = 1_000
JOBS = 200
RENAMES = 500
TURNS = 5

Row = tuple[str, str]


class Database:
    """What PostgreSQL says of itself."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)

    def number(self, query: str) -> float:
        """The one number that a query asks for."""
        row = self._connection.execute(query).fetchone()
        assert row is not None
        return float(row[0])

    @property
    def connections(self) -> float:
        """How many there are beside this one."""
        return self.number("SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL") - 1

    @property
    def bytes(self) -> float:
        """The size of all tables and their indexes."""
        return self.number("SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables")

    @property
    def transactions(self) -> float:
        """How many there have been."""
        self._connection.execute("SELECT pg_stat_clear_snapshot()")
        return self.number("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")


def proportional(pid: int) -> int:
    """The bytes of a process and of those that it has started, what they share counted once."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1_024
    return own + sum(map(proportional, children(pid)))


def several(stack: ExitStack, database: str, count: int) -> list[tuple[str, int]]:
    """So many servers with one worker each, all of them ready: URLs and process ids."""
    os.environ["LORA_WORKERS"] = "1"
    found = [stack.enter_context(server(database)) for _ in range(count)]
    for url, _ in found:
        while httpx.get(f"{url}/readyz").is_error:
            time.sleep(0.05)
    return found


def at_rest(url: str) -> Iterator[Row]:
    """The memory, connections and transactions of one server, and of the second beside it."""
    database = Database(url)
    with ExitStack() as stack:
        one = several(stack, url, 1)[0][1]
        connections = database.connections
        before = database.transactions
        time.sleep(REST_SECONDS)
        idle = (database.transactions - before) / REST_SECONDS
        yield "memory of a server with one worker, torch included", f"{proportional(one) / 2**20:.0f} MiB"
        several(stack, url, 1)
        yield "connections to the database of each server, at rest", f"{database.connections - connections:.0f}"
    yield "transactions per second of each server, at rest", f"{idle:.1f}"


def of_rows(url: str) -> Iterator[Row]:
    """What models and jobs take in the database."""
    database = Database(url)
    with ExitStack() as stack:
        ((door, _),) = several(stack, url, 1)
        http = stack.enter_context(httpx.Client(base_url=door, timeout=60))
        base = made(http)["base_id"]
        before = database.bytes
        models = [made(http, base_id=base)["id"] for _ in range(MODELS)]
        yield (
            "bytes in the database of a model of rank 4 on a shared base, 64 → 10",
            f"{(database.bytes - before) / MODELS:,.0f}",
        )
        before = database.bytes
        plan = {"epochs": 10, "data": {"kind": "random", "n_samples": 50}}
        for model in models[:JOBS]:
            http.post(f"/models/{model}/train", json=plan, headers={"Prefer": "wait=60"}).raise_for_status()
        yield "bytes of a job that has ended, with its version and state", f"{(database.bytes - before) / JOBS:,.0f}"


def made(http: httpx.Client, **settings: Any) -> dict[str, Any]:
    """A new model."""
    sizes = {} if "base_id" in settings else SIZES
    found: dict[str, Any] = http.post("/models", json={**sizes, **settings}).raise_for_status().json()
    return found


def writes(urls: list[str]) -> float:
    """How many times a second clients rename models, spread over the servers."""
    counts = [0] * CLIENTS

    def client(place: int, over: threading.Event) -> None:
        with httpx.Client(base_url=urls[place % len(urls)], timeout=60) as http:
            model = made(http)["id"]
            while not over.is_set():
                http.patch(f"/models/{model}", json={"name": f"n{counts[place]}"}).raise_for_status()
                counts[place] += 1

    with meanwhile([partial(client, place) for place in range(CLIENTS)]):
        time.sleep(SECONDS)
    return sum(counts) / SECONDS


def wall(url: str) -> Iterator[Row]:
    """Writes per second through one server and through two, and what one costs a server that only hears of it."""
    with ExitStack() as stack:
        servers = several(stack, url, 2)
        urls = [each for each, _ in servers]
        pairs = [(writes(urls[:1]), writes(urls)) for _ in range(TURNS)]
        yield (
            f"writes per second of {CLIENTS} clients at one server",
            f"{statistics.median(one for one, _ in pairs):,.0f}",
        )
        yield "the same at two servers ÷ at one", f"{statistics.median(both / one for one, both in pairs):.2f}"
        with httpx.Client(base_url=urls[0], timeout=60) as http:
            model = made(http)["id"]
            before = cpu(servers[1][1])
            for number in range(RENAMES):
                http.patch(f"/models/{model}", json={"name": f"m{number}"}).raise_for_status()
            heard = (cpu(servers[1][1]) - before) / RENAMES
        yield "CPU of a server for each write of another", f"{1_000 * heard:.1f} ms"
        request = Request(f"/models/{model}/forward", json.dumps({"inputs": [[0.5] * 64]}).encode())
        yield (
            "forwards of one row per second at one server, all cores for all",
            f"{saturated(urls[0], request, int(SECONDS)):,.0f}",
        )


def main() -> None:
    """Print the rows."""
    print("| what | measured |", "| --- | --- |", sep="\n")
    for rows in (at_rest, of_rows, wall):
        with tempfile.TemporaryDirectory() as folder, postgres(Path(folder)) as database:
            for row in rows(database):
                print("| {} | {} |".format(*row), flush=True)


if __name__ == "__main__":
    main()
