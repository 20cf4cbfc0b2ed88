"""Settings come from LORA_* and from whoever starts the service, and a wrong one stops the start with one line."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.settings import KUBERNETES, Settings, SettingsError, default_workers, load, usable_cores

LIMITS = {name: field for name, field in Settings.model_fields.items() if field.json_schema_extra}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """No settings from whoever runs the tests."""
    for name in os.environ:
        if name.upper().startswith("LORA_"):
            monkeypatch.delenv(name)


def test_the_defaults_are_those_of_the_contract():
    settings = load()
    assert (settings.host, settings.port, settings.device) == ("127.0.0.1", 8000, "auto")
    assert settings.workers == default_workers()
    assert (settings.memory_mib, settings.layer_mib, settings.train_mib) == (4_096, 1_024, 1_024)
    assert (settings.json_body_mib, settings.binary_body_mib) == (16, 64)
    assert (settings.max_models, settings.queue_max, settings.keep_jobs) == (10_000, 1_024, 10_000)
    assert (settings.sse_streams, settings.grace_seconds, settings.worker_threads) == (256, 20, 1)


def test_every_setting_says_what_it_is():
    assert all(field.description for field in Settings.model_fields.values())


def test_the_environment_moves_a_setting_and_an_argument_wins_over_it(monkeypatch):
    monkeypatch.setenv("LORA_PORT", "9000")
    monkeypatch.setenv("lora_workers", "3")
    assert (load().port, load().workers) == (9000, 3)
    assert load(port=7000).port == 7000
    assert load(port=0).port == 0
    assert load(port=None).port == 9000


@pytest.mark.parametrize("name", ["LORA_X", "LORA_WORKER", "LORA_SERVICE_HOST", "LORA_PORT_80_TCP", "lora_x", "LORA_"])
def test_a_name_that_is_no_setting_stops_the_start(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LORAX_Y", "1")
    with pytest.raises(SettingsError) as wrong:
        load()
    assert str(wrong.value).startswith(f"{name} is not a setting of this service")
    assert str(wrong.value).endswith(f"({KUBERNETES})")
    assert "enableServiceLinks: false" in KUBERNETES


def test_what_the_commands_read_does_not_stop_the_start(monkeypatch):
    before = load()
    monkeypatch.setenv("LORA_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LORA_API_KEY", "secret")
    assert load() == before


def test_a_misspelt_name_is_told_from_the_one_that_was_meant(monkeypatch):
    monkeypatch.setenv("LORA_WORKER_THREAD", "1")
    with pytest.raises(SettingsError, match="did you mean LORA_WORKER_THREADS"):
        load()


@pytest.mark.parametrize("name", ["LORA", "LORAX_Y", "MY_LORA_X"])
def test_other_names_are_none_of_our_business(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    load()


def test_a_port_that_kubernetes_set_is_recognised(monkeypatch):
    monkeypatch.setenv("LORA_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(SettingsError) as wrong:
        load()
    assert str(wrong.value).startswith("LORA_PORT is 'tcp://10.0.0.1:80': ")
    assert str(wrong.value).endswith(f"({KUBERNETES})")
    assert load(port=8000).port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", ""),
        ("port", "65536"),
        ("port", "-1"),
        ("port", ""),
        ("port", "eighty"),
        ("port", "8000.5"),
        ("workers", "0"),
        ("workers", "257"),
        ("worker_threads", "0"),
        ("device", "tpu"),
        ("memory_mib", "0"),
        ("queue_max", "0"),
        ("keep_jobs", "0"),
        ("grace_seconds", "0"),
        ("json_body_mib", "1025"),
    ],
)
def test_a_value_that_does_not_fit_is_named_and_not_taken_for_kubernetes(name, value, monkeypatch):
    monkeypatch.setenv(f"LORA_{name.upper()}", value)
    with pytest.raises(SettingsError) as wrong:
        load()
    assert str(wrong.value).startswith(f"LORA_{name.upper()} is {value!r}: ")
    assert "\n" not in str(wrong.value)
    assert "Kubernetes" not in str(wrong.value)


def test_a_long_value_is_not_repeated_at_length():
    with pytest.raises(SettingsError) as wrong:
        load(port="x" * 10_000)
    assert len(str(wrong.value)) < 200


def test_settings_stay_as_they_are():
    with pytest.raises(ValidationError, match="frozen"):
        load().port = 1


def test_every_limit_has_a_unit_and_can_be_moved(monkeypatch):
    assert len(LIMITS) == 31
    for name in LIMITS:
        monkeypatch.setenv(f"LORA_{name.upper()}", "5")
    assert {getattr(load(), name) for name in LIMITS} == {5}


def test_a_limit_below_one_is_refused_unless_none_at_all_makes_sense():
    others = {"merged_cache_mib": 0, "batch_wait_ms": 0, "checkpoint_seconds": 0, "keep_versions": 0}
    others |= {"bodies_mib": 64, "drain_seconds": 0}
    for name in LIMITS:
        least = others.get(name, 1)
        assert getattr(load(**{name: least}), name) == least
        with pytest.raises(SettingsError, match=f"LORA_{name.upper()} is '{least - 1}'"):
            load(**{name: least - 1})


@hypothesis_settings(max_examples=50)
@given(st.sampled_from(sorted(Settings.model_fields)), st.text(max_size=10) | st.integers() | st.booleans())
def test_any_value_is_taken_or_refused_in_one_line(name, value):
    try:
        load(**{name: value})
    except SettingsError as wrong:
        said = str(wrong)
    else:
        said = "fine"
    assert len(said.splitlines()) == 1


def test_there_is_a_core_to_use_and_a_worker_to_train():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert 1 <= default_workers() <= 4
    assert default_workers() <= max(1, usable_cores() - 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_cores_are_those_the_process_is_bound_to():
    program = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from service import settings as s; "
    said = subprocess.check_output([sys.executable, "-c", program + "print(s.usable_cores(), s.load().workers)"])
    assert said.split() == [b"1", b"1"]


@pytest.mark.parametrize(
    ("url", "layer_mib", "max_models"),
    [(None, 1_024, 10_000), ("sqlite:///x.db", 900, 1_000_000), ("postgresql+psycopg://x@y/z", 500, 1_000_000)],
)
def test_a_database_bounds_a_layer_and_holds_more_models(url, layer_mib, max_models):
    settings = load(database_url=url)
    assert (settings.layer_mib, settings.max_models) == (layer_mib, max_models)
    assert load(database_url=url, layer_mib=layer_mib, max_models=7).max_models == 7
    if url is not None:
        with pytest.raises(SettingsError, match=f"LORA_LAYER_MIB is '{layer_mib + 1}'.*at most {layer_mib}"):
            load(database_url=url, layer_mib=layer_mib + 1)


def test_a_runner_that_is_not_installed_is_refused_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr("service.settings.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"Ray is not installed; `pip install '\.\[ray\]'` .* brings it"):
        load(runner="ray")
    assert load(runner="local").runner == "local"
