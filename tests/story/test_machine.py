"""A durable server and plain dicts that agree on everything, whatever is asked and however often it is killed."""

import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from safetensors.numpy import load, save

from tests.running import DEADLINE_SECONDS, as_process, until

FEATURES = 6  # of the models that the data sets fit
SHAPES = [
    {"in_features": FEATURES, "out_features": 4, "rank": 2},
    {"in_features": FEATURES, "out_features": 4, "rank": 3, "init": "normal", "use_rslora": True},
    {"in_features": FEATURES, "out_features": 4, "rank": 2, "train_bias": True, "dropout": 0.1},
    {"in_features": FEATURES, "out_features": 4, "rank": 2, "init": "pissa", "use_dora": True},
    {"in_features": 16, "out_features": 3, "rank": 1, "bias": False, "alpha": 4},
    {
        "layers": [
            {"in_features": FEATURES, "out_features": 5, "rank": 2, "activation": "relu"},
            {"in_features": 5, "out_features": 4, "rank": 1, "alpha": 2},
        ]
    },
]
SHORT = [
    {"epochs": 2, "data": {"kind": "random", "n_samples": 8}},
    {"epochs": 5, "batch_size": 4, "optimizer": "adamw", "data": {"kind": "random", "n_samples": 20}},
]
LONG = {"epochs": 3_000, "batch_size": 4, "data": {"kind": "random", "n_samples": 20}}
MAX_STARTS = 3
KEEP_VERSIONS = 2
ENDED = ("succeeded", "failed", "cancelled")
CHANGING = {"name", "version", "updated_at", "last_loss"}  # of a model
SAFETENSORS = {"Content-Type": "application/x-safetensors"}

Json = dict[str, Any]


def inputs(features: int) -> np.ndarray:
    """What every model of so many features is run on."""
    return np.linspace(-1, 1, 2 * features, dtype=np.float32).reshape(2, features)


def computed(of: Mapping[str, np.ndarray], model: Json, x: np.ndarray) -> np.ndarray:
    """What a model gives, by its weights."""
    for place, layer in enumerate(model["layers"] or [model]):
        here = f"{place}." if model["layers"] else ""
        x = linear({name.removeprefix(here): tensor for name, tensor in of.items()}, layer["scaling"], x)
        x = np.maximum(x, 0) if layer.get("activation") == "relu" else x
    return x


def linear(of: Mapping[str, np.ndarray], scaling: float, x: np.ndarray) -> np.ndarray:
    """What one layer gives."""
    weight = of["base.weight"] + scaling * of["lora_B.weight"] @ of["lora_A.weight"]
    if "lora_A_init.weight" in of:
        weight = weight - scaling * of["lora_B_init.weight"] @ of["lora_A_init.weight"]
    if "lora_magnitude_vector" in of:
        weight = weight * (of["lora_magnitude_vector"] / np.linalg.norm(weight, axis=1))[:, None]
    return x @ weight.T + of.get("bias", of.get("base.bias", np.float32(0)))


def rows(n: int) -> bytes:
    """An upload of so many rows."""
    draw = np.random.default_rng(n)
    return save(
        {name: draw.standard_normal((n, size)).astype(np.float32) for name, size in (("x", FEATURES), ("y", 4))}
    )


def near(one: Any, other: Any, tolerance: float = 1e-6) -> bool:
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance))


VERBS = {  # what may happen, and what it needs
    "create": ["shape"],
    "rename": ["model"],
    "train": ["model", "plan"],
    "wait": ["job"],
    "look_back": ["model"],
    "roll_back": ["model", "n"],
    "cancel": ["job"],
    "forward": ["model"],
    "delete": ["model"],
    "delete_by_force": ["model"],
    "upload": ["n"],
    "append": ["dataset", "n"],
    "train_on": ["model", "dataset", "epochs"],
    "delete_data": ["dataset"],
    "create_with_key": ["shape"],
    "train_with_key": ["model", "plan"],
    "ask_again": ["answer"],
    "kill": ["moment"],
    "close": ["moment"],
}


class DurableServer(RuleBasedStateMachine):
    """One request after another: what was not answered was not asked, so the dicts know exactly what there must be."""

    @initialize()
    def begin(self) -> None:
        self.over = ExitStack()
        folder = self.over.enter_context(TemporaryDirectory())
        self.environment = {
            "LORA_DATABASE_URL": f"sqlite:///{folder}/lora.db",
            "LORA_CHECKPOINT_SECONDS": "0.05",
            "LORA_KEEP_VERSIONS": str(KEEP_VERSIONS),
        }
        self.known: dict[str, Json] = {}  # models, as they were told last
        self.outputs: dict[tuple[str, int], Any] = {}  # by model and version
        self.rollbacks: Counter[str] = Counter()  # of models
        self.seen: dict[str, Json] = {}  # jobs, as far as they were seen
        self.may_be_cancelled: set[str] = set()
        self.sizes: dict[str, int] = {}  # rows of the data sets
        self.learns_from: dict[str, str] = {}  # data sets of jobs
        self.answers: list[tuple[str, Json, httpx.Response]] = []  # to requests with a key
        self.numbers = count()
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.process, url = self.over.enter_context(as_process(**self.environment))
        self.http = self.over.enter_context(httpx.Client(base_url=url, timeout=DEADLINE_SECONDS))

    def ask(self, method: str, path: str, status: int = 200, **request: Any) -> httpx.Response:
        answer = self.http.request(method, path, **request)
        assert answer.status_code == status, answer.text
        return answer

    def listed(self, path: str) -> list[Json]:
        page = self.ask("GET", path, params={"limit": 200}).json()
        assert page["next_cursor"] is None
        return page["items"]

    def active(self, model: str) -> list[str]:
        """The jobs of a model that have not ended, as far as anybody knows."""
        return [job["id"] for job in self.seen.values() if job["model_id"] == model and job["state"] not in ENDED]

    @property
    def works(self) -> bool:
        return any(job["state"] not in ENDED for job in self.seen.values())

    def published(self, model: str) -> int:
        """How many versions of a model there have been after the first, as far as anybody knows."""
        return len(self.losses(model)) + self.rollbacks[model]

    def losses(self, model: str) -> dict[int, float]:
        """Those of the versions that jobs have published."""
        mine = [job for job in self.seen.values() if job["model_id"] == model and job["state"] == "succeeded"]
        return {job["model_version"]: job["metrics"]["final_loss"] for job in mine}

    def kept(self, model: str) -> list[int]:
        """The versions that a model must keep, the newest first, where nothing is under way."""
        last, losses = self.published(model), self.losses(model)
        lowest = max((number for number, loss in losses.items() if loss == min(losses.values())), default=last)
        return sorted({*range(max(0, last - KEEP_VERSIONS), last + 1), lowest}, reverse=True)

    def key(self) -> dict[str, str]:
        return {"Idempotency-Key": f"key {next(self.numbers)}"}

    @rule(draw=st.data())
    def something_happens(self, draw: st.DataObject) -> None:
        """One of all that may happen now: rules of their own would be left out at random, whole examples long."""

        things = {
            "shape": SHAPES,
            "plan": [*SHORT, LONG, LONG],
            "epochs": [2, LONG["epochs"]],
            "n": [1, 5, 20],
            "model": [*self.known],
            "job": [*self.seen],
            "dataset": [*self.sizes],
            "answer": self.answers,
            "moment": ["now"] * (self.works and self.starts < MAX_STARTS),
        }
        verb = draw.draw(
            st.sampled_from([verb for verb, needs in VERBS.items() if all(things[need] for need in needs)])
        )
        getattr(self, verb)(**{need: draw.draw(st.sampled_from(things[need])) for need in VERBS[verb]})

    def create(self, shape: Json) -> None:
        model = self.ask("POST", "/models", 201, json={**shape, "name": f"model {next(self.numbers)}"}).json()
        self.known[model["id"]] = model

    def rename(self, model: str) -> None:
        name = f"ñame {next(self.numbers)}"
        assert self.ask("PATCH", f"/models/{model}", json={"name": name}).json()["name"] == name
        self.known[model]["name"] = name

    def train(self, model: str, plan: Json) -> None:
        job = self.ask("POST", f"/models/{model}/train", 202, json=plan).json()
        self.seen[job["id"]] = job

    def wait(self, job: str) -> None:
        until(lambda: self.ask("GET", f"/jobs/{job}").json()["state"] in ENDED)

    def look_back(self, model: str) -> None:
        self.must_keep_what_it_should(model)

    def roll_back(self, model: str, n: int) -> None:
        self.look_at_jobs()
        kept = [each["version"] for each in self.versions(model)]
        number = kept[n % len(kept)]
        active, then = self.active(model), self.outputs_of(model, number)
        answer = self.http.post(f"/models/{model}/rollback", json={"version": number})
        if not active or answer.status_code not in (404, 409):  # gone meanwhile, or busy
            assert answer.status_code == 200, answer.text
            self.rollbacks[model] += 1
            if then is not None:
                self.outputs[model, answer.json()["version"]] = then

    def versions(self, model: str) -> list[Json]:
        return self.ask("GET", f"/models/{model}/versions").json()["items"]

    def cancel(self, job: str) -> None:
        told = self.ask("POST", f"/jobs/{job}/cancel").json()
        assert told["state"] == "cancelled" or told["state"] in ("succeeded", self.seen[job]["state"])
        self.may_be_cancelled.add(job)

    def forward(self, model: str) -> None:
        self.must_give_what_its_weights_do(model)

    def delete(self, model: str) -> None:
        self.look_at_jobs()
        active = self.active(model)
        answer = self.http.delete(f"/models/{model}")
        if not active or answer.status_code != 409:
            assert answer.status_code == 204, answer.text  # they may just have ended
            self.must_have_gone(model)

    def delete_by_force(self, model: str) -> None:
        self.may_be_cancelled.update(self.active(model))
        self.ask("DELETE", f"/models/{model}?force=true", 204)
        self.must_have_gone(model)

    def must_have_gone(self, model: str) -> None:
        del self.known[model]
        self.look_at_jobs()
        assert not self.active(model)

    def upload(self, n: int) -> None:
        dataset = self.ask("POST", "/datasets", 201, content=rows(n), headers=SAFETENSORS).json()["id"]
        self.sizes[dataset] = n

    def append(self, dataset: str, n: int) -> None:
        self.ask("POST", f"/datasets/{dataset}/rows", content=rows(n), headers=SAFETENSORS)
        self.sizes[dataset] += n

    def train_on(self, model: str, dataset: str, epochs: int) -> None:
        batch = min(4, self.sizes[dataset])
        plan = {"epochs": epochs, "batch_size": batch, "data": {"kind": "dataset", "id": dataset}}
        fits = self.known[model]["in_features"] == FEATURES
        job = self.ask("POST", f"/models/{model}/train", 202 if fits else 422, json=plan).json()
        if fits:
            assert job["plan"]["data"]["n_samples"] == self.sizes[dataset]
            self.seen[job["id"]] = job
            self.learns_from[job["id"]] = dataset

    def delete_data(self, dataset: str) -> None:
        self.look_at_jobs()
        busy = any(of == dataset and self.seen[job]["state"] not in ENDED for job, of in self.learns_from.items())
        answer = self.http.delete(f"/datasets/{dataset}")
        if not busy or answer.status_code != 409:
            assert answer.status_code == 204, answer.text
            del self.sizes[dataset]

    def create_with_key(self, shape: Json) -> None:
        request = {"json": shape, "headers": self.key()}
        made = self.ask("POST", "/models", 201, **request)
        self.known[made.json()["id"]] = made.json()
        self.answers.append(("/models", request, made))

    def train_with_key(self, model: str, plan: Json) -> None:
        request = {"json": plan, "headers": self.key()}
        made = self.ask("POST", f"/models/{model}/train", 202, **request)
        self.seen[made.json()["id"]] = made.json()
        self.answers.append((f"/models/{model}/train", request, made))

    def ask_again(self, answer: tuple[str, Json, httpx.Response]) -> None:
        path, request, first = answer
        again = self.http.post(path, **request)
        assert again.headers["Idempotency-Replayed"] == "true", again.text
        assert again.json()["id"] == first.json()["id"]
        assert path != "/models" or again.content == first.content

    def kill(self, moment: str = "") -> None:
        self.process.kill()
        self.process.wait()
        self.start()

    def close(self, moment: str) -> None:
        self.process.terminate()
        assert self.process.wait(DEADLINE_SECONDS) == 0
        self.start()

    # What must hold

    @invariant()
    def the_server_has_what_the_dicts_have(self) -> None:
        self.look_at_jobs()
        least = {model: self.published(model) for model in self.known}
        models = {model["id"]: model for model in self.listed("/models")}
        self.look_at_jobs()
        assert [*models] == [*self.known]
        for name, model in models.items():
            assert least[name] <= model["version"] <= self.published(name)
            was = self.known[name]
            assert {key: of for key, of in model.items() if key not in CHANGING} == {
                key: of for key, of in was.items() if key not in CHANGING
            }
            assert model["name"] == was["name"]
            assert model["version"] >= was["version"]
            was.update(model)
        assert {of["id"]: of["n_samples"] for of in self.listed("/datasets")} == self.sizes

    def look_at_jobs(self) -> None:
        jobs = {job["id"]: job for job in self.listed("/jobs")}
        assert [*jobs] == [*self.seen]
        for name, job in jobs.items():
            self.must_go_on_from(self.seen[name], job)
            self.seen[name] = job if len(job["losses"]) >= len(self.seen[name]["losses"]) else {**self.seen[name]}

    def must_go_on_from(self, was: Json, job: Json) -> None:
        """No job goes back, but to where it was last stored; and one that has ended changes no more."""
        both = min(len(was["losses"]), len(job["losses"]))
        assert near(was["losses"][:both], job["losses"][:both])
        if was["state"] in ENDED:
            assert job == was
        elif job["state"] == "succeeded":
            assert len(job["losses"]) == job["epochs"] >= len(was["losses"])
        else:
            assert job["state"] in ("queued", "running") or job["id"] in self.may_be_cancelled

    def must_keep_what_it_should(self, model: str) -> None:
        """Each version that is kept is what it was, and where nothing is under way they are the right ones."""
        self.look_at_jobs()
        active, versions = self.active(model), self.versions(model)
        numbers = [each["version"] for each in versions]
        assert active or numbers == self.kept(model)
        assert [each["version"] for each in versions if each["current"]] == numbers[:1]
        for each in versions:
            assert each["parent"] is None or each["parent"] < each["version"]
            assert each["origin"] == ("training" if each["job_id"] else "rollback" if each["version"] else "created")
            assert self.outputs_of(model, each["version"]) is not None or active

    def outputs_of(self, model: str, number: int) -> Any:
        """The outputs of a version, by its weights and by a forward; None where it is gone meanwhile."""
        told, query = self.known[model], {"version": number}
        x = inputs(told["in_features"])
        weights = self.http.get(f"/models/{model}/weights", params=query)
        given = self.http.post(f"/models/{model}/forward", params=query, json={"inputs": x.tolist()})
        if 404 in (weights.status_code, given.status_code):
            return None
        assert weights.headers["X-Model-Version"] == given.headers["X-Model-Version"] == str(number)
        outputs = computed(load(weights.content), told, x)
        assert near(given.json()["outputs"], outputs, 1e-5)
        assert near(self.outputs.setdefault((model, number), outputs), outputs, 1e-5)
        return outputs

    def must_give_what_its_weights_do(self, model: str) -> None:
        told = self.known[model]
        x = inputs(told["in_features"])
        given = self.ask("POST", f"/models/{model}/forward", json={"inputs": x.tolist()}).json()
        version = given["model_version"], given["model_id"]
        if (model, version[0]) not in self.outputs:
            weights = self.ask("GET", f"/models/{model}/weights")
            if int(weights.headers["X-Model-Version"]) != version[0]:  # published meanwhile
                return
            self.outputs[model, version[0]] = computed(load(weights.content), told, x)
        assert near(given["outputs"], self.outputs[model, version[0]], 1e-5)

    def teardown(self) -> None:
        with self.over:
            if sys.exc_info()[0] is None:
                self.all_ends_well()

    def all_ends_well(self) -> None:
        """After the last restart every job succeeds that nobody has cancelled, and everything is there."""
        if self.starts == 1:
            self.kill()
        until(lambda: all(job["state"] in ENDED for job in self.listed("/jobs")))
        self.the_server_has_what_the_dicts_have()
        for job in self.seen.values():
            assert job["state"] == "succeeded" or job["id"] in self.may_be_cancelled, job
        for model, told in self.known.items():
            assert told["version"] == self.published(model)
            self.must_keep_what_it_should(model)
            self.must_give_what_its_weights_do(model)
            assert (model, told["version"]) in self.outputs


@pytest.mark.timeout(600)
def test_whatever_is_asked_a_durable_server_has_what_it_acknowledged() -> None:
    run_state_machine_as_test(
        DurableServer,
        settings=settings(
            max_examples=2,
            stateful_step_count=60,
            derandomize=True,
            phases=[Phase.generate],  # to shrink would take hours
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
