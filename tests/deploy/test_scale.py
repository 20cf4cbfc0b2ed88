"""The Compose profile `scale` is of parts that fit together."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.deploy import composed

ROOT = Path(__file__).parents[2]
RELEASE_SECONDS = 15  # in which jobs stop, and workers end


@pytest.fixture(scope="module")
def scaled() -> dict[str, Any]:
    """The services of the profile, without what is only there for others to take from."""
    return {name: service for name, service in composed.services().items() if "scale" in service.get("profiles", ())}


def test_the_load_balancer_brings_up_all_of_it(scaled):
    reached, waiting = set(), ["balancer"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += [other for other in scaled[name].get("depends_on", ()) if other not in reached]
    assert reached == set(scaled) == {"balancer", "replica", "db", "ray-head", "ray-worker"}


def test_the_replicas_are_told_settings_that_fit(scaled, monkeypatch):
    told = {name: value for name, value in composed.environment("replica").items() if name.startswith("LORA_")}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert {f"LORA_{name}".upper() for name in settings.model_fields_set} == set(told)
    stops_in = int(scaled["replica"]["stop_grace_period"].removesuffix("s"))
    assert stops_in >= settings.drain_seconds + settings.grace_seconds + RELEASE_SECONDS
    configuration = (ROOT / "deploy/haproxy.cfg").read_text()
    assert "check inter 1s fall 1" in configuration
    assert settings.drain_seconds > 1 + 1
    assert "replica:8000" in configuration


def test_ray_is_reached_where_it_listens_by_those_who_know_the_token(scaled):
    head, worker, replica = (scaled[name] for name in ("ray-head", "ray-worker", "replica"))
    assert "--ray-client-server-port=10001" in head["command"]
    assert replica["environment"]["LORA_RAY_ADDRESS"] == "ray://ray-head:10001"
    assert "--port=6379" in head["command"]
    assert "--address=ray-head:6379" in worker["command"]
    for name in ("ray-head", "ray-worker", "replica"):
        told = composed.environment(name, RAY_AUTH_TOKEN="only ours")
        assert (told["RAY_AUTH_MODE"], told["RAY_AUTH_TOKEN"]) == ("token", "only ours")
    cpus = int(next(word for word in worker["command"] if word.startswith("--num-cpus=")).partition("=")[2])
    assert cpus == replica["deploy"]["replicas"] * replica["environment"]["LORA_WORKERS"]


@pytest.mark.parametrize("name", ["ray-head", "ray-worker"])
def test_without_a_token_ray_does_not_start_and_says_what_it_misses(scaled, name, tmp_path):
    told = {**os.environ, **composed.environment(name), "HOME": str(tmp_path)}
    ray, *words = scaled[name]["command"]
    command = [Path(sys.executable).parent / ray, *words]
    ended = subprocess.run(command, env=told, capture_output=True, text=True, timeout=100)
    assert ended.returncode != 0
    assert "`RAY_AUTH_TOKEN` environment variable" in ended.stderr


def test_nothing_of_it_is_reached_but_the_load_balancer_and_that_from_this_machine(scaled):
    assert {name for name, service in scaled.items() if "ports" in service} == {"balancer"}
    assert scaled["balancer"]["ports"] == ["127.0.0.1:8000:8000"]
    for name in set(scaled) - {"db"}:
        assert scaled[name]["cap_drop"] == ["ALL"]
        assert scaled[name]["read_only"]
