"""What whoever starts the Compose file says of who is let in reaches every container that serves."""

import pytest

from service.api.keys import ANYBODY, Keys
from service.client.calls import bearer
from service.errors import Unauthorized
from service.settings import Settings
from tests.deploy.composed import environment

KEY = "k" * 32
SERVERS = pytest.mark.parametrize("name", ["lora", "replica"])


def told(monkeypatch: pytest.MonkeyPatch, name: str, **variables: str) -> Settings:
    """The settings of a server in a container."""
    for variable, value in environment(name, **variables).items():
        if variable.startswith("LORA_"):
            monkeypatch.setenv(variable, value)
    return Settings()


@SERVERS
def test_keys_that_are_set_outside_are_asked_for_within(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    keys = Keys(told(monkeypatch, name, LORA_API_KEYS=f"{KEY}:read"))
    assert keys.caller(bearer(KEY)["Authorization"].encode()) is not ANYBODY
    with pytest.raises(Unauthorized):
        keys.caller(b"")


@SERVERS
def test_names_pages_and_what_is_logged_are_those_that_are_set_outside(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given = {"allowed_hosts": "lora.example.org", "allowed_origins": "https://example.org", "log_level": "info"}
    settings = told(monkeypatch, name, **{f"LORA_{setting}".upper(): value for setting, value in given.items()})
    assert {setting: getattr(settings, setting) for setting in given} == given


@SERVERS
def test_what_is_not_set_outside_is_as_if_it_were_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    settings = told(monkeypatch, name)
    for setting in ("api_keys", "allowed_hosts", "allowed_origins", "log_level"):
        assert getattr(settings, setting) == Settings.model_fields[setting].default
    assert settings.insecure
