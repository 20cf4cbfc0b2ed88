"""The manifests are what Kubernetes takes, fit together, and set what the service knows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.api.guard import Guard
from service.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
VERSION = "1.30"
OWN_IMAGE = "lora-service-ray"
RELEASE_SECONDS = 15  # in which jobs stop, and workers end

Manifest = dict[str, Any]


def manifests() -> Iterator[Manifest]:
    for file in sorted(FOLDER.glob("*.yaml")):
        yield from yaml.safe_load_all(file.read_text())


ALL = {f"{each['kind']} {each['metadata']['name']}": each for each in manifests()}
PODS = {name: each["spec"]["template"] for name, each in ALL.items() if "template" in each.get("spec", {})}
SECRET = ALL["Secret lora"]["stringData"]


def containers(pod: Manifest) -> Iterator[Manifest]:
    yield from pod["spec"]["containers"]


def environment(pod: Manifest) -> dict[str, Any]:
    """What the first container is told: values, or where they come from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in next(containers(pod))["env"]}


@pytest.mark.parametrize("name", ALL)
def test_a_manifest_is_one_that_kubernetes_takes(name):
    kubernetes_validate.validate(ALL[name], VERSION, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_more_rights_than_it_needs(name):
    spec = PODS[name]["spec"]
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in containers(PODS[name]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert container["image"] != OWN_IMAGE or container["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_found_by_its_owner_and_gets_secrets_that_there_are(name):
    assert ALL[name]["spec"]["selector"]["matchLabels"].items() <= PODS[name]["metadata"]["labels"].items()
    for value in environment(PODS[name]).values():
        if isinstance(value, dict):
            assert value["secretKeyRef"]["name"] == "lora"
            assert value["secretKeyRef"]["key"] in SECRET


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("Service ")])
def test_a_service_finds_a_pod_that_has_the_port(name):
    spec = ALL[name]["spec"]
    (pod,) = [each for each in PODS.values() if spec["selector"].items() <= each["metadata"]["labels"].items()]
    open_ports = {port["name"] for container in containers(pod) for port in container["ports"]}
    assert {port["targetPort"] for port in spec["ports"]} <= open_ports


def test_the_servers_are_told_settings_that_fit(monkeypatch):
    told = environment(PODS["Deployment lora"])
    known = {name: value for name, value in told.items() if name.startswith("LORA_")}
    known |= {"LORA_DATABASE_URL": SECRET["database-url"], "LORA_API_KEYS": SECRET["api-keys"]}
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert {f"LORA_{name}".upper() for name in settings.model_fields_set} == set(known)
    ends_in = PODS["Deployment lora"]["spec"]["terminationGracePeriodSeconds"]
    assert ends_in >= settings.drain_seconds + settings.grace_seconds + RELEASE_SECONDS
    probe = next(containers(PODS["Deployment lora"]))["readinessProbe"]
    assert probe["failureThreshold"] * (probe["periodSeconds"] + probe["timeoutSeconds"]) < settings.drain_seconds
    guard = Guard(settings)
    for name in ("lora", "lora.default", "lora.default.svc", "lora.default.svc.cluster.local"):
        guard.caller("GET", "/", {b"host": name.encode()})
    assert settings.ray_address == "ray://lora-ray:10001"
    assert {port["port"] for port in ALL["Service lora-ray"]["spec"]["ports"]} >= {10001}
    assert SECRET["database-url"] == f"postgresql+psycopg://lora:{SECRET['database-password']}@lora-db/lora"


def reached_by(policy: str) -> tuple[set[str], set[str]]:
    """Which pods a policy is for, and which it lets in."""
    spec = ALL[f"NetworkPolicy {policy}"]["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    let_in = [source["podSelector"] for rule in spec["ingress"] for source in rule["from"]]
    return pods(spec["podSelector"]), set().union(*map(pods, let_in))


def pods(selector: Manifest) -> set[str]:
    wanted = selector["matchLabels"].items()
    return {name for name, pod in PODS.items() if wanted <= pod["metadata"]["labels"].items()}


def test_only_the_servers_reach_the_database_and_only_they_and_ray_reach_ray():
    servers, ray = {"Deployment lora"}, {"Deployment lora-ray", "Deployment lora-ray-worker"}
    assert reached_by("lora-db") == ({"StatefulSet lora-db"}, servers)
    assert reached_by("lora-ray") == (ray, ray | servers)
    (rule,) = ALL["NetworkPolicy lora-db"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": ALL["Service lora-db"]["spec"]["ports"][0]["targetPort"]}]
