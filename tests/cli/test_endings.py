"""Every way in which a command ends: its status, and one line that says what to do."""

import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from service import errors
from service.api.problems import status_of
from service.cli.app import COMMANDS
from service.cli.endings import ENDINGS, ending
from service.cli.statuses import Status
from tests.cli.terminal import lora, process
from tests.running import DEADLINE_SECONDS, Service

MISSING = "0" * 26
NOBODY = "http://127.0.0.1:9"
# What the statuses of HTTP are to a command; the others are words or values that are wrong.
BY_HTTP = {404: 3, 408: 5, 409: 4, 412: 4, 429: 5, 500: 1, 503: 5, 507: 5}


@pytest.mark.parametrize("kind", errors.kinds())
def test_every_error_of_the_service_ends_as_its_http_status_says(kind: type[errors.ServiceError]) -> None:
    said, status = ending(kind("what was wrong"))
    assert status == BY_HTTP.get(status_of(kind), 2)
    assert said.startswith("what was wrong")


def test_what_is_special_stands_before_what_is_general() -> None:
    kinds = list(ENDINGS)
    for place, kind in enumerate(kinds):
        assert not any(issubclass(later, kind) for later in kinds[place + 1 :]), kind


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("models",), 5, "start one with `lora serve`"),
        (("show", f"mdl_{MISSING}"), 3, "`lora models` lists those there are"),
        (("show", f"job_{MISSING}"), 3, "`lora jobs` lists those there are"),
        (("show", f"dat_{MISSING}"), 3, "`lora datasets` lists those there are"),
        (("show", f"swp_{MISSING}"), 3, "`lora sweeps` lists those there are"),
        (("show", "base_" + "0" * 64), 3, "`lora bases` lists those there are"),
        (("show", "nobody is called so"), 3, "`lora models` lists those there are"),
        (("cancel", f"mdl_{MISSING}"), 2, "is a model, and a job is wanted"),
        (("cancel", "job_zz"), 3, "there is no job 'job_zz'; `lora jobs` lists"),
        (("create", "--base", "base_x"), 3, "there is no base 'base_x'; `lora bases` lists"),
        (("rollback", f"mdl_{MISSING}"), 3, "`lora models` lists those there are"),
        (("rename", f"job_{MISSING}", "x"), 2, "is a job, and a model is wanted"),
        (("models", "--limit", "0"), 2, "--limit"),
        (("show", f"mdl_{MISSING}", "--follow"), 2, "--follow is of a job"),
        (("create", "--in", "4"), 2, "out_features must be given"),
        (("create", "--in", "4", "--out", "2", "--set", "self=1"), 2, "--set self names no field"),
        (("create", "--in", "four"), 2, "`lora create --help` tells what there is"),
        (("creat",), 2, "Did you mean 'create'"),
        (("models", "--nam", "x"), 2, "No such option: --nam"),
        (("create", "--base", "nowhere.safetensors"), 2, "nowhere.safetensors: No such file"),
        (("models", "--api-key", "secret\r"), 2, "the API key is empty, or holds"),
        (("top", "--once", "--api-key", "secret\r"), 2, "the API key is empty, or holds"),
        (("backup", "x.db"), 2, "LORA_DATABASE_URL names no database"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_what_to_do(
    service: Service, words: tuple[str, ...], status: int, says: str
) -> None:
    ended = lora(*words, url=NOBODY if status == 5 else service.url)
    assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (status, "", 1)
    assert ended.stderr.startswith("lora: ")
    assert says in ended.stderr
    assert "secret" not in ended.stderr


def test_a_service_that_is_another_is_told_from_ours() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ended = lora("models", "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert (ended.exit_code, ended.stderr.count("\n")) == (5, 1)
    assert "see whether --url names a lora-service" in ended.stderr


def test_a_bug_keeps_its_trace() -> None:
    with pytest.raises(ZeroDivisionError):
        ending(ZeroDivisionError())


def test_ctrl_c_ends_any_command_with_130() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # which takes the connection, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with process("models", LORA_URL=url) as started:
            try:
                silent.settimeout(DEADLINE_SECONDS)
                connection, _ = silent.accept()
                started.send_signal(2)
                _, said = started.communicate(timeout=DEADLINE_SECONDS)
                connection.close()
            finally:
                started.kill()
    assert (started.returncode, "Traceback" in said) == (130, False)


def test_the_key_is_sent_as_a_bearer_token() -> None:
    seen: list[str | None] = []

    class Asking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"items": [], "next_cursor": None}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Asking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert lora("models", "--api-key", "one", url=url).exit_code == 0
        assert lora("models", url=url, LORA_API_KEY="two").exit_code == 0
        assert lora("models", url=url).exit_code == 0
        server.shutdown()
    assert seen == ["Bearer one", "Bearer two", None]


def test_every_command_has_help_and_json_and_loads_nothing_heavy_for_it() -> None:
    heavy = "torch", "numpy", "httpx", "pydantic", "service.client", "service.api"
    code = f"""if True:
        import sys
        from typer.testing import CliRunner
        from service.cli import app
        from service.cli.app import COMMANDS
        for commands in COMMANDS.values():
            for name in commands:
                shown = CliRunner().invoke(app, [name, "--help"]).stdout
                assert "--json" in shown, name
                assert f"lora {{name}}" in shown.partition("Example")[2], name
        print([name for name in {heavy!r} if name in sys.modules])
    """
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_no_command_of_a_client_loads_torch(service: Service) -> None:
    model = service.http.post("/models", json={"in_features": 2, "out_features": 2, "rank": 1}).json()["id"]
    commands = [["models"], ["show", model], ["train", model, "--follow"], ["top", "--once"], ["jobs", "--json"]]
    code = f"""if True:
        import sys
        from typer.testing import CliRunner
        from service.cli import app
        for words in {commands!r}:
            assert CliRunner().invoke(app, words).exit_code == 0, words
        print("torch" in sys.modules)
    """
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        env={"LORA_URL": service.url},
    )
    assert (ended.stdout, ended.stderr) == ("False\n", "")


def test_the_commands_are_those_of_the_contract() -> None:
    names = [name for commands in COMMANDS.values() for name in commands]
    assert len(names) == len(set(names))
    wanted = "serve demo create train forward models jobs show rm cancel export import rank-profile sweep top doctor"
    assert set(wanted.split()) | {"openapi", "backup", "restore"} <= set(names)


def test_the_statuses_are_those_of_the_contract() -> None:
    assert {status.name: status.value for status in Status} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "CONFLICT": 4,
        "UNAVAILABLE": 5,
        "INTERRUPTED": 130,
    }
