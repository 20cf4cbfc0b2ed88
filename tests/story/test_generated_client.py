"""A client that a stock generator makes of `/openapi.json`, and the main job by it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load

from service.api import openapi
from tests.running import Service, until

SETTINGS = Path(__file__).parents[2] / "docs" / "openapi-python-client.yaml"
PACKAGE = "lora_service_client"
# What the generator calls classes that have no name of their own.
NAMELESS = re.compile(r"Type\d|Response\d|Body$|Anonymous|[a-z]Item$")


class Sdk:
    """The generated package, bound to the service."""

    def __init__(self, url: str) -> None:
        self.models = import_module(f"{PACKAGE}.models")
        self.types = import_module(f"{PACKAGE}.types")
        connect = import_module(f"{PACKAGE}.client").Client
        self.client = connect(base_url=url, raise_on_unexpected_status=True, timeout=httpx.Timeout(60))

    def __call__(self, path: str, *arguments: Any, **named: Any) -> Any:
        """What the function `tag.operation` of the package returns."""
        return import_module(f"{PACKAGE}.api.{path}").sync(*arguments, client=self.client, **named)

    def create(self, **settings: Any) -> Any:
        """A new model."""
        return self("models.create_model", body=self.models.CreateModelRequest(**settings))

    def file(self, content: bytes) -> Any:
        """A body that is bytes."""
        return self.types.File(payload=BytesIO(content))


@pytest.fixture(scope="module")
def sdk(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdk]:
    """The package, made without a word of warning."""
    folder = tmp_path_factory.mktemp("generated")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--url", f"{service.url}/openapi.json"]
    options = ["--meta", "none", "--config", str(SETTINGS), "--output-path", str(folder / PACKAGE), "--fail-on-warning"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where ruff is, with which it tidies up
    environment = {**os.environ, "PATH": path}
    made = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, env=environment)
    assert (made.returncode, made.stdout.split(), made.stderr) == (0, ["Generating", str(folder / PACKAGE)], "")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        bound = Sdk(service.url)
        with bound.client:
            yield bound


def test_every_operation_is_a_function_under_its_tag(sdk: Sdk) -> None:
    for methods in openapi.document()["paths"].values():
        for operation in methods.values():
            tag = operation["tags"][0].replace(" ", "_")
            assert import_module(f"{PACKAGE}.api.{tag}.{operation['operationId']}").sync_detailed


def test_every_class_has_a_name_that_reads_well(sdk: Sdk) -> None:
    names = set(sdk.models.__all__)
    assert {"Model", "ModelPage", "Job", "JobPage", "State", "Problem", "Init", "Optimizer", "Loss", "Plan"} <= names
    assert [name for name in names - {"MixedItem"} if NAMELESS.search(name)] == []


def test_a_model_is_created_trained_run_and_deleted(sdk: Sdk) -> None:
    models = sdk.models
    notes = models.Metadata.from_dict({"owner": "me"})
    model = sdk.create(in_features=64, out_features=10, rank=4, seed=42, init=models.Init.KAIMING, metadata=notes)
    assert isinstance(model, models.Model)
    assert (model.parameters.trainable, model.parameters.total, model.metadata["owner"]) == (296, 946, "me")

    digits = models.DigitsData(kind="digits", split=models.Split.TRAIN)
    asked = models.TrainRequest(epochs=5, batch_size=16, loss=models.Loss.CROSS_ENTROPY, seed=0, data=digits)
    job = sdk("training.train_model", model.id, body=asked)
    assert isinstance(job, models.Job)
    until(lambda: sdk("jobs.get_job", job.id).state == models.State.SUCCEEDED)
    job = sdk("jobs.get_job", job.id)
    assert len(job.losses) == 5
    assert job.losses[-1] < job.losses[0]
    assert job.metrics["accuracy"] > 0.85
    assert job.plan["optimizer"] == "adam"
    assert sdk("jobs.get_losses_csv", job.id).startswith("epoch,loss")

    answer = sdk("forward.forward", model.id, body=models.ForwardRequest(inputs=[[0.0] * 64, [1.0] * 64]))
    assert isinstance(answer, models.ForwardResponse)
    assert (answer.shape, answer.model_version, len(answer.outputs)) == ([2, 10], 1, 2)

    assert sdk("models.get_model", model.id).last_loss == job.metrics["final_loss"]
    delete_model = import_module(f"{PACKAGE}.api.models.delete_model")
    assert delete_model.sync_detailed(model.id, client=sdk.client).status_code == 204
    assert sdk("models.get_model", model.id).type_ == "/problems/model-not-found"


def test_a_training_is_waited_for(sdk: Sdk) -> None:
    model = sdk.create(in_features=8, out_features=2, rank=2)
    job = sdk("training.train_model", model.id, prefer="wait=30", idempotency_key="once")
    assert job.state == sdk.models.State.SUCCEEDED
    assert sdk("training.train_model", model.id, idempotency_key="once").id == job.id


def test_what_is_left_out_is_not_sent(sdk: Sdk) -> None:
    """The defaults beside other fields: with closed_form there is no lr, and a sum has no init of its own."""
    models = sdk.models
    sizes = [{"in_features": 8, "out_features": 4, "rank": 2}, {"in_features": 4, "out_features": 2, "rank": 2}]
    assert len(sdk.create(layers=[models.LayerRequest(**each) for each in sizes]).layers) == 2
    one = sdk.create(in_features=8, out_features=2, rank=2)
    body = models.TrainRequest(optimizer=models.Optimizer.CLOSED_FORM, data=models.TeacherData(kind="teacher"))
    job = sdk("training.train_model", one.id, body=body, prefer="wait=30")
    assert job.metrics["gap_closed"] == pytest.approx(1, abs=1e-3)
    assert sdk.create(combine=[models.CombineMember(model_id=one.id, weight=0.5)]).combined.rank == 2


def test_pages_are_followed_to_the_last(sdk: Sdk) -> None:
    made = [sdk.create(in_features=2, out_features=2, rank=1, name="paged by a stock client").id for _ in range(5)]
    page = sdk("models.list_models", name="paged by a stock client", limit=2)
    seen = [model.id for model in page.items]
    while page.next_cursor is not None:
        page = sdk("models.list_models", name="paged by a stock client", limit=2, cursor=page.next_cursor)
        seen += [model.id for model in page.items]
    assert seen == made
    assert sdk("jobs.list_jobs", model_id=made[0], state=sdk.models.State.QUEUED).items == []


def test_a_refusal_is_a_problem_with_its_faults(sdk: Sdk) -> None:
    refused = sdk.create(in_features=64, out_features=10, rank=12)
    assert isinstance(refused, sdk.models.Problem)
    assert (refused.status, refused.type_, refused.errors[0].pointer) == (422, "/problems/validation", "/rank")
    missing = sdk("jobs.get_job", "job_00000000000000000000000000")
    assert isinstance(missing, sdk.models.Problem)
    assert (missing.status, missing.retryable) == (404, False)


def test_a_change_is_guarded_by_the_etag(sdk: Sdk) -> None:
    model = sdk.create(in_features=2, out_features=2, rank=1)
    read = import_module(f"{PACKAGE}.api.models.get_model").sync_detailed(model.id, client=sdk.client)
    body = sdk.models.UpdateModelRequest(name="mine")
    tag = read.headers["ETag"]
    assert sdk("models.update_model", model.id, body=body, if_match=tag).name == "mine"
    assert sdk("models.update_model", model.id, body=body, if_match=tag).status == 412


def test_tensors_go_and_come_as_bytes(sdk: Sdk) -> None:
    model = sdk.create(in_features=8, out_features=2, rank=2, init=sdk.models.Init.NORMAL)
    tensors = load(sdk("models.get_weights", model.id).payload.read())
    adapter = sdk("adapters.get_adapter", model.id).payload.read()
    other = sdk.create(base_id=model.base_id, rank=2)
    assert sdk("adapters.put_adapter", other.id, body=sdk.file(adapter)).version == 1
    rows = np.ones((3, 8), np.float32)
    wanted = rows @ (tensors["base.weight"] + tensors["lora_B.weight"] @ tensors["lora_A.weight"]).T
    body = sdk.models.ForwardRequest(inputs=rows.tolist())
    outputs = sdk("forward.forward", other.id, body=body).outputs
    np.testing.assert_allclose(outputs, wanted + tensors["base.bias"], rtol=1e-4, atol=1e-5)
    assert sdk("adapters.get_adapter_config", other.id).r == 2


def test_health_and_limits_are_read(sdk: Sdk) -> None:
    assert sdk("system.readyz", verbose="").checks["workers"] == "ok"
    assert sdk("system.get_limits").limits["rank"].value == 1_024
    assert sdk("open_inference_protocol.server_ready").ready
