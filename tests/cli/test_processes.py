"""`lora serve --processes`: several processes on one port and one PostgreSQL."""

import os
import signal
from pathlib import Path

import httpx

from tests.cli.test_serve import lora
from tests.postgres import postgres
from tests.running import DEADLINE_SECONDS, as_process, until


def born(url: str) -> str:
    """Which process answers a new connection: its ids begin alike."""
    with httpx.Client(base_url=url, timeout=30) as http:
        return http.get("/livez").raise_for_status().headers["x-request-id"][:8]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_processes_answer_on_one_port_are_replaced_when_they_die_and_end_together(tmp_path: Path) -> None:
    with (
        postgres(tmp_path) as database,
        as_process("--processes", "2", LORA_DATABASE_URL=database, LORA_LEASE_SECONDS="2") as (process, url),
    ):
        until(lambda: len({born(url) for _ in range(8)}) == 2)
        with httpx.Client(base_url=url, timeout=30) as http:
            model = http.post("/models", json={"in_features": 64, "out_features": 10}).json()["id"]
        for _ in range(8):  # whichever process it meets
            with httpx.Client(base_url=url, timeout=30) as http:
                assert http.post(f"/models/{model}/forward", json={"inputs": [0.5] * 64}).status_code == 200
        first, _ = before = children(process.pid)
        os.kill(first, signal.SIGKILL)
        until(lambda: len(children(process.pid)) == 2 and first not in children(process.pid))
        until(lambda: len({born(url) for _ in range(8)}) == 2)  # who came meanwhile was answered by the new one
        running = children(process.pid)
        assert len({*before, *running}) == 3
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in running)


def test_processes_without_a_database_that_they_can_share_are_refused_with_one_line() -> None:
    ended = lora("serve", "--port", "0", "--processes", "2", LORA_DATABASE_URL="sqlite:///lora.db")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "LORA_PROCESSES is '2': processes share their models in a PostgreSQL" in ended.stderr
