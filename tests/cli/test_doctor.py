"""`lora doctor` tells what is well, what is not, and what to do about it."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from service.cli import doctor
from service.models.sql import SqlStore
from service.settings import load
from tests.cli.terminal import lora
from tests.running import Service

NOBODY = "http://127.0.0.1:9"


def examined(url: str, status: int, **environment: str) -> dict[str, Any]:
    ended = lora("doctor", "--json", url=url, **environment)
    assert ended.exit_code == status, ended.output
    return {check["name"]: check for check in json.loads(ended.stdout)}


def test_a_service_that_runs_is_found_well(service: Service, tmp_path: Path) -> None:
    checks = examined(service.url, 0, LORA_DATABASE_URL=f"sqlite:///{tmp_path}/lora.db", LORA_PORT="0")
    well = {name for name, check in checks.items() if check["verdict"] == "ok"}
    assert {"version", "service", "settings", "port", "database", "torch"} <= well
    assert "will be made" in checks["database"]["says"]
    assert not (tmp_path / "lora.db").exists()
    assert "torch 2" in checks["torch"]["says"]


def test_what_is_wrong_ends_with_status_5_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    checks = examined(NOBODY, 5, LORA_DATABASE_URL=f"sqlite:///{tmp_path}/file/lora.db", LORA_MEMORY_MIB="100000000")
    assert (checks["database"]["verdict"], checks["memory"]["verdict"]) == ("fail", "warn")
    assert (checks["service"]["verdict"], checks["service"]["advice"][:12]) == ("warn", "`lora serve`")
    assert all(check["advice"] for check in checks.values() if check["verdict"] != "ok")
    wrong = examined(NOBODY, 5, LORA_WORKERS="none")
    assert wrong["settings"]["verdict"] == "fail"
    assert "LORA_WORKERS is 'none'" in wrong["settings"]["says"]
    assert "torch" not in wrong


def test_a_line_has_its_verdict_first(service: Service) -> None:
    ended = lora("doctor", url=service.url, LORA_WORKERS="none")
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [line[:2] for line in lines[:3]] == [["ok", "version"], ["ok", "service"], ["fail", "settings"]]
    assert ended.exit_code == 5


def test_a_port_in_use_is_told(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        check = doctor.port(load(port=other.getsockname()[1]))
    assert (check.verdict, "Address already in use" in check.says) == ("warn", True)


def test_another_program_is_no_service(service: Service) -> None:
    from service.cli.calling import Place

    check = doctor.answering(Place(f"{service.url}/docs?", None, False))
    assert (check.verdict, "is no lora-service" in check.says) == ("fail", True)


def test_a_database_that_is_there_is_told_from_one_that_is_not(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lora.db"
    SqlStore(url).close()
    check = doctor.database(load(database_url=url))
    assert (check.verdict, "is up to date" in check.says) == ("ok", True)
    assert doctor.database(load(database_url="mysql://x")).verdict == "fail"
    assert doctor.database(load(database_url="postgresql+psycopg://nobody@127.0.0.1:9/x")).verdict == "fail"


def test_a_torch_that_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TORCH_SECONDS", 0.01)
    check = doctor.torch(load())
    assert (check.verdict, "is not imported after" in check.says) == ("fail", True)


@pytest.mark.parametrize("shell", sorted(doctor.COMPLETIONS))
def test_completion_is_looked_for_where_it_is_installed(shell: str, tmp_path: Path) -> None:
    assert doctor.completion(f"/bin/{shell}", tmp_path).verdict == "warn"
    (tmp_path / doctor.COMPLETIONS[shell]).parent.mkdir(parents=True)
    (tmp_path / doctor.COMPLETIONS[shell]).touch()
    assert doctor.completion(f"/bin/{shell}", tmp_path).verdict == "ok"
    assert doctor.completion("/bin/rc", tmp_path).verdict == "ok"
