"""The Open Inference Protocol: stock clients work unchanged, and the specification's own bytes are understood."""

import json
from typing import get_args

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from service.codecs.oip import DTYPES
from service.schemas.choices import Datatype
from tests.running import Service

LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def model(service: Service) -> dict:
    fields = {"in_features": 6, "out_features": 5, "init": "normal", "seed": 1}
    created = service.http.post("/models", json=fields).json()
    service.http.post(f"/models/{created['id']}/train", headers={"Prefer": "wait=60"})
    return service.http.get(f"/models/{created['id']}").json()


@pytest.fixture(scope="module")
def client(service: Service):
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as made:
        yield made


def expected(http: httpx.Client, model: dict, x: np.ndarray) -> np.ndarray:
    answer = http.post(f"/models/{model['id']}/forward", json={"inputs": x.tolist()}).json()
    return np.array(answer["outputs"], np.float32).reshape(answer["shape"])


def infer(http: httpx.Client, model: dict, *, id: str | None = None, **tensor: object) -> httpx.Response:
    body = {"inputs": [{"name": "inputs", "datatype": "FP32", **tensor}], **({"id": id} if id else {})}
    return http.post(f"/v2/models/{model['id']}/infer", json=body)


def test_tritons_client_finds_what_it_asks_for(client, model: dict) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model["id"])
    assert client.is_model_ready(model["id"], "1")
    assert client.is_model_ready(model["id"], "0")
    assert not client.is_model_ready(model["id"], "2")
    assert not client.is_model_ready("mdl_00000000000000000000000000")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata(model["id"])
    assert (metadata["name"], metadata["versions"]) == (model["id"], ["0", "1"])
    assert metadata["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, 6]}]
    assert metadata["outputs"] == [{"name": "outputs", "datatype": "FP32", "shape": [-1, 5]}]


@settings(max_examples=20, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    kind=st.sampled_from([("FP32", np.float32), ("FP64", np.float64), ("FP16", np.float16)]),
    sent=st.booleans(),
    asked=st.sampled_from([None, True, False]),
    seed=st.integers(0, 1_000),
)
def test_tritons_client_gets_what_forward_gives(
    service: Service, client, model: dict, shape: list[int], kind: tuple, sent: bool, asked: bool | None, seed: int
) -> None:
    datatype, dtype = kind
    x = np.random.default_rng(seed).standard_normal((*shape, 6)).astype(dtype)
    sent = sent or datatype == "FP16"  # the client knows no JSON of these
    tensor = triton.InferInput("inputs", list(x.shape), datatype)
    tensor.set_data_from_numpy(x, binary_data=sent)
    outputs = None if asked is None else [triton.InferRequestedOutput("outputs", binary_data=asked)]
    result = client.infer(model["id"], [tensor], outputs=outputs, request_id="abc", model_version="1")
    y = expected(service.http, model, x.astype(np.float32))
    np.testing.assert_allclose(result.as_numpy("outputs"), y, rtol=0, atol=1e-6 * np.abs(y).max())
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("abc", model["id"], "1")
    assert ("parameters" in response["outputs"][0]) == (asked is not False)


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("datatype", [name for name in DTYPES if "INT" in name])
def test_integers_are_run_as_the_same_numbers(service: Service, client, model: dict, datatype: str, sent: bool) -> None:
    dtype = np.dtype(DTYPES[datatype])
    x = np.array([[0, 1, 2, 3, 100, np.iinfo(dtype).max], [np.iinfo(dtype).min, 5, 4, 3, 2, 1]], dtype)
    tensor = triton.InferInput("x", list(x.shape), datatype)
    tensor.set_data_from_numpy(x, binary_data=sent)
    y = expected(service.http, model, x)
    given = client.infer(model["id"], [tensor]).as_numpy("outputs")
    np.testing.assert_allclose(given, y, rtol=0, atol=1e-6 * np.abs(y).max())


def test_every_datatype_that_may_be_named_is_one_that_is_read() -> None:
    assert {*get_args(Datatype.__value__)} == {*DTYPES}


def test_tritons_client_tells_what_was_wrong(client, model: dict) -> None:
    tensor = triton.InferInput("inputs", [1, 7], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 7), np.float32))
    with pytest.raises(InferenceServerException, match="its last dimension must be in_features = 6"):
        client.infer(model["id"], [tensor])
    with pytest.raises(InferenceServerException, match="there is no model"):
        client.infer("mdl_00000000000000000000000000", [tensor])


def test_a_request_as_kserve_documents_it_is_answered_as_documented(http: httpx.Client, model: dict) -> None:
    rows = [[6.8, 2.8, 4.8, 1.4, 0.5, 0.1], [6.0, 3.4, 4.5, 1.6, 0.2, 0.3]]
    body = {"inputs": [{"name": "input-0", "shape": [2, 6], "datatype": "FP32", "data": rows}]}
    answer = http.post(f"/v2/models/{model['id']}/infer", content=json.dumps(body)).json()
    assert answer.keys() == {"model_name", "model_version", "outputs"}
    (output,) = answer["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("outputs", [2, 5], "FP32")
    np.testing.assert_allclose(output["data"], expected(http, model, np.array(rows)).ravel(), rtol=1e-5, atol=1e-6)


def test_the_bytes_of_the_binary_extension_are_those_of_its_specification(http: httpx.Client, model: dict) -> None:
    x = np.linspace(-1, 1, 12, dtype="<f4").reshape(2, 6)
    head = (
        b'{"id":"7","inputs":[{"name":"inputs","shape":[2,6],"datatype":"FP32","parameters":{"binary_data_size":48}}],'
        b'"outputs":[{"name":"outputs","parameters":{"binary_data":true}}]}'
    )
    headers = {LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    answer = http.post(f"/v2/models/{model['id']}/infer", content=head + x.tobytes(), headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    told = json.loads(answer.content[:length])
    assert told["outputs"][0]["parameters"] == {"binary_data_size": 40}
    y = np.frombuffer(answer.content[length:], "<f4").reshape(told["outputs"][0]["shape"])
    np.testing.assert_allclose(y, expected(http, model, x), rtol=1e-5, atol=1e-6)


def test_numbers_may_be_flat_and_rows_none(http: httpx.Client, model: dict) -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    flat, nested = (infer(http, model, shape=[2, 6], data=data).json() for data in (x.ravel().tolist(), x.tolist()))
    assert flat == nested
    empty = infer(http, model, shape=[0, 6], data=[]).json()["outputs"][0]
    assert (empty["shape"], empty["data"]) == ([0, 5], [])
    large = infer(http, model, shape=[6], data=[3e38] * 6).json()["outputs"][0]
    assert large["shape"] == [5]
    assert {each for each in large["data"] if isinstance(each, str)} <= {"NaN", "Infinity", "-Infinity"}


def test_a_large_layer_and_a_large_request_are_answered_too(http: httpx.Client) -> None:
    wide = http.post("/models", json={"in_features": 1_024, "out_features": 1_024, "init": "normal"}).json()
    x = np.random.default_rng(0).standard_normal((40, 1_024)).astype("<f4")
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "inputs",
                    "shape": [40, 1_024],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": x.nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    headers = {LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    answer = http.post(f"/v2/models/{wide['id']}/infer", content=head + x.tobytes(), headers=headers)
    y = np.frombuffer(answer.content[int(answer.headers[LENGTH]) :], "<f4").reshape(40, 1_024)
    raw = http.post(
        f"/models/{wide['id']}/forward", content=x.tobytes(), headers={"Content-Type": "application/octet-stream"}
    )
    assert y.tobytes() == raw.content
    http.delete(f"/models/{wide['id']}")


@pytest.mark.parametrize(
    ("tensor", "slug", "at"),
    [
        ({"shape": [1, 5], "data": [0.5] * 5}, "shape-mismatch", "/inputs/0"),
        ({"shape": [1, 6], "data": [0.5] * 5}, "shape-mismatch", "/inputs/0/data"),
        ({"shape": [2, 6], "data": [[0.5] * 12]}, "shape-mismatch", "/inputs/0/data"),
        ({"shape": [1, 6], "data": ["0.5"] * 6}, "validation", "/inputs/0/data/0"),
        ({"shape": [1, 6], "data": [1e39] * 6}, "non-finite", "/inputs/0/data/0"),
        ({"shape": [1, 6]}, "validation", "/inputs/0/data"),
        ({"shape": [1, 6], "data": 4}, "validation", "/inputs/0/data"),
        ({"shape": [], "data": []}, "validation", "/inputs/0/shape"),
        ({"shape": [-1, 6], "data": []}, "validation", "/inputs/0/shape/0"),
        ({"shape": [1, 6], "data": [1] * 6, "datatype": "BOOL"}, "validation", "/inputs/0/datatype"),
        ({"shape": [1, 6], "data": [True] * 6, "datatype": "INT8"}, "validation", "/inputs/0/data/0"),
        ({"shape": [1, 6], "data": ["NaN"] * 6, "datatype": "INT8"}, "non-finite", "/inputs/0/data/0"),
        ({"shape": [1, 6], "data": [1] * 6, "parameters": []}, "validation", "/inputs/0/parameters"),
        ({"shape": [1, 6], "parameters": {"binary_data_size": 24}}, "shape-mismatch", None),
        ({"shape": [0] + [2**31] * 7, "data": []}, "shape-mismatch", "/inputs/0/shape"),
    ],
)
def test_a_wrong_tensor_is_a_problem_whose_error_the_protocol_knows(
    http: httpx.Client, model: dict, tensor: dict, slug: str, at: str | None
) -> None:
    answer = infer(http, model, **tensor)
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{slug}"), answer.text
    assert answer.json()["error"] == answer.json()["detail"]
    if at is not None:
        assert answer.json()["errors"][0]["pointer"] == at


ONE_ROW = (
    b'{"inputs": [{"name": "a", "shape": [6], "datatype": "FP32", %b"data": [1, 2, 3, 4, 5, 6]}], '
    b'"outputs": [{"name": "outputs"%b}]}'
)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {}, 422),
        (b"{", {}, 400),
        (b"{}", {LENGTH: "3"}, 422),
        (b"{}", {LENGTH: "x"}, 422),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b'{"inputs": [], "outputs": []}', {}, 422),
        (ONE_ROW % (b"", b"") + b"garbage", {LENGTH: str(len(ONE_ROW % (b"", b"")))}, 422),
        (ONE_ROW % (b'"parameters": {"shared_memory_region": "a"}, ', b""), {}, 422),
        (ONE_ROW % (b"", b', "parameters": {"classification": 2}'), {}, 422),
        (ONE_ROW % (b"", b', "parameters": {"shared_memory_region": "a"}'), {}, 422),
        (ONE_ROW % (b"", b', "parameters": {"binary_data": "false"}'), {}, 422),
        (b"{}", {LENGTH: str(2**30)}, 422),
        (b" " * (2**24 + 1), {LENGTH: str(2**24 + 1)}, 413),
        (
            b'{"inputs": [{"name": "a", "shape": [6], "datatype": "FP32", "data": [1]}], "outputs": [{"name": "b"}]}',
            {},
            422,
        ),
    ],
)
def test_a_wrong_request_is_a_problem(
    http: httpx.Client, model: dict, content: bytes, headers: dict, status: int
) -> None:
    answer = http.post(f"/v2/models/{model['id']}/infer", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert "error" in answer.json()


# As MLServer's NumpyCodec and NumpyRequestCodec build them, with and without what is none left out.
OF_MLSERVER = [
    {
        "parameters": {"content_type": "np"},
        "inputs": [
            {
                "name": "input-0",
                "shape": [2, 6],
                "datatype": "INT64",
                "parameters": {"content_type": "np"},
                "data": list(range(12)),
            }
        ],
    },
    {
        "id": None,
        "parameters": None,
        "inputs": [
            {
                "name": "input-0",
                "shape": [2, 6],
                "datatype": "FP64",
                "parameters": None,
                "data": [float(number) for number in range(12)],
            }
        ],
        "outputs": None,
    },
    {
        "id": None,
        "parameters": {"content_type": "np", "headers": None},
        "inputs": [
            {
                "name": "input-0",
                "shape": [2, 6],
                "datatype": "UINT8",
                "parameters": {"content_type": None, "headers": {"x": "y"}},
                "data": list(range(12)),
            }
        ],
        "outputs": [{"name": "outputs", "parameters": None}],
    },
]


@pytest.mark.parametrize("body", OF_MLSERVER)
def test_requests_as_mlserver_builds_them_are_answered(http: httpx.Client, model: dict, body: dict) -> None:
    answer = http.post(f"/v2/models/{model['id']}/infer", json=body)
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_allclose(output["data"], expected(http, model, x).ravel(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at", ["request", "input", "output"])
@pytest.mark.parametrize("parameters", [None, {}, {"priority": 1, "a": None, "b": {"c": [1]}}])
def test_parameters_that_are_for_others_are_let_pass(
    http: httpx.Client, model: dict, at: str, parameters: dict | None
) -> None:
    body = json.loads(ONE_ROW % (b"", b""))
    {"request": body, "input": body["inputs"][0], "output": body["outputs"][0]}[at]["parameters"] = parameters
    assert http.post(f"/v2/models/{model['id']}/infer", json=body).status_code == 200


def test_what_would_change_the_answer_is_not_let_pass(http: httpx.Client, model: dict) -> None:
    answer = infer(http, model, shape=[6], data=[1] * 6, parameters={"shared_memory_region": "a"})
    assert answer.status_code == 422
    assert answer.json()["detail"] == 'inputs[0].parameters.shared_memory_region is "a"; it must be null, or left out'


def test_versions_that_are_kept_are_listed_and_served(http: httpx.Client, model: dict) -> None:
    at = f"/v2/models/{model['id']}"
    assert http.get(at).json()["versions"] == ["0", "1"]
    x = np.ones((1, 6), np.float32)
    seen = []
    for version in ("0", "1"):
        assert http.get(f"{at}/versions/{version}").json() == http.get(at).json()
        assert http.get(f"{at}/versions/{version}/ready").json() == {"name": model["id"], "ready": True}
        tensor = {"name": "x", "shape": [1, 6], "datatype": "FP32", "data": [1] * 6}
        answer = http.post(f"{at}/versions/{version}/infer", json={"inputs": [tensor]}).json()
        assert answer["model_version"] == version
        query = {"version": version}
        same = http.post(f"/models/{model['id']}/forward", json={"inputs": x.tolist()}, params=query).json()
        np.testing.assert_allclose(answer["outputs"][0]["data"], same["outputs"][0], rtol=1e-5, atol=1e-6)
        seen.append(answer["outputs"][0]["data"])
    assert seen[0] != seen[1]


@pytest.mark.parametrize("version", ["2", "-1", "01", "x", "%20", "1" * 30])
def test_a_version_that_is_not_kept_is_not_found(http: httpx.Client, model: dict, version: str) -> None:
    at = f"/v2/models/{model['id']}/versions/{version}"
    for answer in (http.get(at), http.get(f"{at}/ready"), http.post(f"{at}/infer", json={})):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/version-not-found")
        assert "lists those it keeps" in answer.json()["detail"]
