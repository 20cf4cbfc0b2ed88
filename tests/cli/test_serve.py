"""`lora serve` as it is started."""

import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from service import __version__
from service.cli.serve import MEMORY_ONLY
from service.settings import Settings
from tests.running import DEADLINE_SECONDS, as_process, descendants, gone, until


def lora(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, env={**os.environ, **environment}
    )


def test_the_settings_in_force_are_printed_at_start() -> None:
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    environment = {**os.environ, "LORA_QUEUE_MAX": "7", "LORA_DEVICE": "cpu"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            printed = [line.strip() for line in iter(process.stdout.readline, f"{MEMORY_ONLY}\n")]
        finally:
            process.kill()
    assert {"LORA_QUEUE_MAX=7", "LORA_DEVICE=cpu (cpu)", "LORA_PORT=0", "LORA_MEMORY_MIB=4096"} <= set(printed)
    assert len(printed) == len(Settings.model_fields)


def test_the_settings_in_force_are_those_given() -> None:
    with as_process(LORA_QUEUE_MAX="7", LORA_MEMORY_MIB="512") as (process, url):
        limits = httpx.get(f"{url}/limits").json()["limits"]
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert (limits["queue_max"]["value"], limits["memory_mib"]["value"]) == (7, 512)


def test_with_json_it_prints_one_line_when_it_is_ready_and_a_key_is_no_setting() -> None:
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--json"]
    environment = {**os.environ, "LORA_QUEUE_MAX": "7", "LORA_API_KEY": "secret"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            assert httpx.get(f"{told['url']}/livez").status_code == 200
            process.terminate()
            out, said = process.communicate(timeout=DEADLINE_SECONDS)
        finally:
            process.kill()
    assert (told["durable"], told["settings"]["LORA_QUEUE_MAX"], out) == (False, 7, "")
    assert "a service asks for the keys that LORA_API_KEYS lists, and this one for none" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"LORA_WORKER": "2"}, "LORA_WORKER is not a setting"),
        ({"LORA_SERVICE_HOST": "10.0.0.1"}, "enableServiceLinks: false"),
        ({"LORA_PORT": "tcp://10.0.0.1:80"}, "enableServiceLinks: false"),
        ({"LORA_WORKERS": "none"}, "LORA_WORKERS is 'none'"),
        ({"LORA_WORKERS": "0"}, "LORA_WORKERS is '0'"),
        ({"LORA_DEVICE": "tpu"}, "LORA_DEVICE is 'tpu'"),
        ({"LORA_HOST": ""}, "LORA_HOST is ''"),
        ({"LORA_HOST": "no.such.host.invalid"}, "LORA_HOST is 'no.such.host.invalid'"),
        ({"LORA_HOST": "192.0.2.1"}, "nothing can listen there: Cannot assign requested address"),
    ],
)
def test_a_setting_that_is_wrong_stops_the_start_with_one_line(environment: dict[str, str], says: str) -> None:
    ended = lora("serve", **environment)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_device_that_is_not_there_stops_the_start_with_one_line() -> None:
    ended = lora("serve", "--port", "0", LORA_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "no CUDA device" in ended.stderr


def test_a_port_in_use_stops_the_start_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = lora("serve", "--port", str(port))
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert f"LORA_PORT is {port}, and nothing can listen there: Address already in use" in ended.stderr


@pytest.mark.parametrize("program", ["serve", "demo"])
def test_ctrl_c_in_the_terminal_leaves_no_trace_and_no_process(program: str) -> None:
    command = [sys.executable, "-m", "service", program, *(["--port", "0"] if program == "serve" else [])]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        until(lambda: descendants(started.pid))
        family = descendants(started.pid)
        os.killpg(started.pid, signal.SIGINT)
        _, said = started.communicate(timeout=DEADLINE_SECONDS)
    finally:
        started.kill()
    assert started.returncode in (0, 130)
    assert "Traceback" not in said
    until(lambda: all(gone(pid) for pid in family))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_told_to_end_leaves_no_process(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "service", "demo"]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: len(descendants(started.pid)) > 1)
        family = descendants(started.pid)
        started.send_signal(number)
        assert started.wait(DEADLINE_SECONDS) == 128 + number
    finally:
        started.kill()
        started.wait()
    until(lambda: all(gone(pid) for pid in family))


def test_an_option_that_does_not_exist_is_a_usage_error() -> None:
    assert lora("serve", "--prot", "80").returncode == 2


def test_the_version_is_the_packages() -> None:
    assert lora("--version").stdout == f"lora-service {__version__}\n"


def test_help_lists_the_commands_without_importing_torch() -> None:
    ended = lora("--help")
    assert ended.returncode == 0
    assert "serve" in ended.stdout
    assert "demo" in ended.stdout
    code = "import sys, service.cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
