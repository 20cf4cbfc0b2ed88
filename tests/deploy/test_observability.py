"""What watches the service: its dashboard asks for what it tells, and its files fit together."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.running import in_thread

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/lora-service.json"
NAME = re.compile(r"\blora_\w+")
SAMPLES = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}


@pytest.fixture(scope="module")
def told() -> tuple[set[str], set[str]]:
    """The names of all samples that the service tells, and of all labels, after it has had something to do."""
    with in_thread() as service:
        model = service.http.post("/models", json={"in_features": 4, "out_features": 2, "rank": 1}).json()
        assert service.http.post(f"/models/{model['id']}/forward", json={"inputs": [0] * 4}).status_code == 200
        families = list(text_string_to_metric_families(service.http.get("/metrics").text))
    names = {f"{family.name}{end}" for family in families for end in SAMPLES.get(family.type, [])}
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    return names, labels | {"reason"}  # which a request has that was refused


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the Compose file."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def queries() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """Which file or folder stands where in a container."""
    pairs = (volume.split(":")[:2] for volume in service["volumes"])
    return {there: ROOT / here for here, there in pairs if here.startswith("./")}


@pytest.mark.parametrize("query", list(queries()))
def test_every_query_asks_for_what_the_service_tells(told: tuple[set[str], set[str]], query: str) -> None:
    names, labels = told
    assert NAME.findall(query)
    assert set(NAME.findall(query)) <= names
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
    assert grouped | set(re.findall(r"(\w+)=\"", query)) <= labels


def test_the_page_on_monitoring_speaks_of_what_the_service_tells(told: tuple[set[str], set[str]]) -> None:
    names, _ = told
    spoken = set(NAME.findall((ROOT / "docs/pages/operations/monitoring.md").read_text()))
    assert [name for name in spoken if not any(each.startswith(name) for each in names)] == []


def test_the_panels_do_not_lie_on_each_other() -> None:
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) == 23


def test_prometheus_asks_a_service_that_there_is(services: dict[str, Any]) -> None:
    (asked,) = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    (target,) = asked["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert services[name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_prometheus_finds_each_replica_where_the_load_balancer_does(services: dict[str, Any]) -> None:
    (asked,) = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    (found,) = asked["dns_sd_configs"]
    assert found["type"] == "A"
    (name,) = found["names"]
    assert services[name]["deploy"]["replicas"] > 1
    assert f"{name}:{found['port']}" in (ROOT / "deploy/haproxy.cfg").read_text()


def test_what_all_servers_tell_alike_is_not_added_up_and_all_else_is() -> None:
    shared = {"lora_models", "lora_datasets", "lora_jobs", "lora_job_queue_depth", "lora_build_info"}
    for query in queries():
        alike = set(NAME.findall(query)) <= shared
        assert ("max" if alike else "sum") in query


def test_grafana_finds_prometheus_and_the_dashboard(services: dict[str, Any]) -> None:
    grafana = mounts(services["grafana"])
    provisioning = grafana["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert services["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    assert {panel["datasource"]["uid"] for panel in json.loads(DASHBOARD.read_text())["panels"]} == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards/files.yml").read_text())["providers"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (grafana[provider["options"]["path"]] / Path(home).name) == DASHBOARD


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_who_watches_is_of_its_own_profile_and_on_loopback(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["profiles"] == ["observability"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["cap_drop"] == ["ALL"]
    assert [place for place in mounts(service).values() if not place.exists()] == []
