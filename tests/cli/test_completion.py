"""The shell completes commands, options and the ids of what the service holds, and is silent where it cannot."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.terminal import COMMAND, done
from tests.running import DEADLINE_SECONDS, Service


def completed(line: str, **environment: str) -> list[str]:
    """What bash is told of a line with the cursor at its end."""
    told = {"_LORA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    ended = subprocess.run(
        COMMAND, capture_output=True, text=True, timeout=DEADLINE_SECONDS, env={**os.environ, **told, **environment}
    )
    assert ended.stderr == ""
    return ended.stdout.split()


def test_commands_and_options_are_completed() -> None:
    assert completed("lora for") == ["forward"]
    assert "--follow" in completed("lora train --")


def test_ids_are_asked_of_the_service(service: Service) -> None:
    model = done("create", "--in", 2, "--out", 2, "--rank", 1, "-q", url=service.url)
    job = done("train", model, "-q", url=service.url)
    assert model in completed(f"lora forward {model[:8]}", LORA_URL=service.url)
    assert completed(f"lora show {job[:-1]}", LORA_URL=service.url) == [job]
    assert completed(f"lora --url {service.url} rm {model}x") == []
    assert completed(f"lora forward --url {service.url} {model}") == [model]


def test_it_is_silent_and_quick_where_nobody_answers() -> None:
    assert completed("lora forward mdl", LORA_URL="http://127.0.0.1:9") == []
    assert completed("lora forward mdl", LORA_URL="no url") == []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert completed("lora forward mdl", LORA_URL=f"http://127.0.0.1:{silent.getsockname()[1]}") == []
        assert time.monotonic() - began < DEADLINE_SECONDS / 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_shown(shell: str) -> None:
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ended = subprocess.run(
        [*COMMAND, "--show-completion", shell], capture_output=True, text=True, timeout=60, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert "_LORA_COMPLETE" in ended.stdout


def test_it_is_installed_for_the_shell_that_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ended = subprocess.run(
        [*COMMAND, "--install-completion", "bash"], capture_output=True, text=True, timeout=60, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / ".bash_completions" / "lora.sh").exists()
