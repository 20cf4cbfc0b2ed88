"""`lora serve` as it is started."""

import os
import subprocess
import sys

import httpx
import pytest

from service import __version__
from tests.running import as_process


def lora(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def test_the_settings_in_force_are_printed_at_start() -> None:
    with as_process(LORA_QUEUE_MAX="7", LORA_MEMORY_MIB="512") as (process, url):
        limits = httpx.get(f"{url}/limits").json()["limits"]
        process.terminate()
        assert process.wait(15) == 0
    assert (limits["queue_max"]["value"], limits["memory_mib"]["value"]) == (7, 512)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"LORA_WORKER": "2"}, "LORA_WORKER is not a setting"),
        ({"LORA_SERVICE_HOST": "10.0.0.1"}, "enableServiceLinks: false"),
        ({"LORA_PORT": "tcp://10.0.0.1:80"}, "enableServiceLinks: false"),
        ({"LORA_WORKERS": "none"}, "LORA_WORKERS is 'none'"),
        ({"LORA_WORKERS": "0"}, "LORA_WORKERS is '0'"),
        ({"LORA_DEVICE": "tpu"}, "LORA_DEVICE is 'tpu'"),
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
