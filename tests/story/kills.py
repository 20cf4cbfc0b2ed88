"""Kill a durable server again and again at random moments, and see that nothing it acknowledged is lost.

`python -m tests.story.kills 200 [SEED]` does so in full; the tests do it a few times.
"""

import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.progress import track

from tests.running import as_process, until

Json = dict[str, Any]

INPUTS = {"inputs": [0.5] * 16}
PLAN = {"epochs": 40, "batch_size": 8, "data": {"kind": "random", "n_samples": 400}}


@dataclass
class Known:
    """What a client was told, and what it does not know because the answer never came."""

    names: dict[str, str] = field(default_factory=dict)  # of models that were made
    unsure: dict[str, set[str]] = field(default_factory=dict)  # names that may hold too
    deleted: set[str] = field(default_factory=set)
    perhaps_deleted: set[str] = field(default_factory=set)
    jobs: dict[str, str] = field(default_factory=dict)  # the models of jobs that were accepted
    losses: dict[str, list[float]] = field(default_factory=dict)  # that were seen
    ended: dict[str, Json] = field(default_factory=dict)  # jobs, as they were at their end
    outputs: dict[tuple[str, int], list[float]] = field(default_factory=dict)  # by model and version
    refusals: frozenset[int] = frozenset()  # statuses by which nothing was done
    workers_die: bool = False
    plan: Json = field(default_factory=lambda: PLAN)

    def done(self, answer: httpx.Response, status: int) -> bool | None:
        """Whether what was asked was done; None where the service itself does not know."""
        if answer.status_code in self.refusals:
            return None if "not known" in answer.text else False
        assert answer.status_code == status, answer.text
        return True


def client(url: str, known: Known, draw: random.Random, over: threading.Event) -> None:
    """Create, rename, train and delete at random until the server is gone."""
    with httpx.Client(base_url=url, timeout=30) as http:
        while not over.is_set():
            try:
                act(http, known, draw)
            except httpx.TransportError:
                return


def act(http: httpx.Client, known: Known, draw: random.Random) -> None:
    """One request, and what it taught."""
    there = [model_id for model_id in known.names if model_id not in known.deleted | known.perhaps_deleted]
    what = draw.choice(["create", "rename", "train", "train", "look", "delete"]) if there else "create"
    model_id, name = draw.choice(there) if there else "", f"n{draw.random()}"
    if what == "create":
        made = http.post("/models", json={"in_features": 16, "out_features": 8, "name": name})
        if known.done(made, 201):
            known.names[made.json()["id"]] = name
    elif what == "rename":
        known.unsure.setdefault(model_id, set()).add(name)
        done = known.done(http.patch(f"/models/{model_id}", json={"name": name}), 200)
        if done:
            known.names[model_id] = name
            known.unsure.pop(model_id)
        elif done is False:
            known.unsure[model_id].discard(name)
    elif what == "train":
        accepted = http.post(f"/models/{model_id}/train", json=known.plan)
        if known.done(accepted, 202):
            known.jobs[accepted.json()["id"]] = model_id
    elif what == "look" and known.jobs:
        job_id = draw.choice(list(known.jobs))
        seen = http.get(f"/jobs/{job_id}").json()["losses"]
        known.losses[job_id] = max(seen, known.losses.get(job_id, []), key=len)
    elif what == "delete" and len(there) > 5:
        known.perhaps_deleted.add(model_id)
        done = known.done(http.delete(f"/models/{model_id}?force=true"), 204)
        if done:
            known.deleted.add(model_id)
        elif done is False:
            known.perhaps_deleted.discard(model_id)


def listed(http: httpx.Client, path: str) -> dict[str, Json]:
    """All that a list has, by id."""
    found: dict[str, Json] = {}
    cursor: str | None = ""
    while cursor is not None:
        page = http.get(path, params={"limit": 200, **({"cursor": cursor} if cursor else {})}).raise_for_status().json()
        found |= {each["id"]: each for each in page["items"]}
        cursor = page["next_cursor"]
    return found


def check(http: httpx.Client, known: Known) -> None:
    """All that was acknowledged is there, every job has ended well, and every loss that was seen is its loss."""
    jobs, models = listed(http, "/jobs"), listed(http, "/models")
    published: dict[str, int] = {}
    for job_id in known.jobs:
        job = jobs[job_id]
        gone = job["model_id"] in known.deleted | known.perhaps_deleted
        died = known.workers_die and job["reason"] == "worker-died"
        assert job["state"] == "succeeded" or died or (gone and job["state"] == "cancelled"), job
        assert known.ended.setdefault(job_id, job) == job
        published[job["model_id"]] = published.get(job["model_id"], 0) + (job["state"] == "succeeded")
        seen = known.losses.get(job_id, [])
        assert all(abs(a - b) <= 1e-6 * abs(b) for a, b in zip(seen, job["losses"], strict=False)), job_id
        assert len(job["losses"]) >= len(seen) or job["state"] != "succeeded"
    for model_id, name in known.names.items():
        if model_id in known.deleted:
            assert model_id not in models
        elif model_id in models or model_id not in known.perhaps_deleted:
            model = models[model_id]
            assert model["name"] in {name, *known.unsure.get(model_id, ())}
            assert model["version"] >= published.get(model_id, 0)
            run_on(http, model_id, known)


def run_on(http: httpx.Client, model_id: str, known: Known) -> None:
    """A version of a model gives what it has always given."""
    answer = http.post(f"/models/{model_id}/forward", json=INPUTS)
    assert answer.status_code == 200, answer.text
    outputs, version = answer.json()["outputs"], answer.json()["model_version"]
    before = known.outputs.setdefault((model_id, version), outputs)
    assert all(abs(a - b) <= 1e-5 for a, b in zip(before, outputs, strict=True)), (model_id, version)


def ended(http: httpx.Client) -> bool:
    """Whether no job is left to be trained."""
    return not any(http.get("/jobs", params={"state": state}).json()["items"] for state in ("queued", "running"))


def run(times: int, seed: int, folder: Path, watched: Callable[[range], Any] = iter) -> Known:
    """Start, use and kill a server so many times, then let it finish and check everything."""
    known, draw = Known(), random.Random(seed)
    settings = {"LORA_DATABASE_URL": f"sqlite:///{folder}/lora.db", "LORA_CHECKPOINT_SECONDS": "0.1"}
    for number in watched(range(times)):
        with as_process(**settings) as (process, url):
            over = threading.Event()
            asks = threading.Thread(target=client, args=(url, known, random.Random(draw.random()), over))
            asks.start()
            if number == 0:  # there is something to lose, on a slow machine too
                until(lambda: bool(known.jobs))
            time.sleep(draw.random())
            process.kill()
            over.set()
            asks.join()
            assert process.stdout is not None
            assert "Traceback" not in process.stdout.read()
    with as_process(**settings) as (process, url), httpx.Client(base_url=url, timeout=30) as http:
        until(lambda: ended(http), 300)
        check(http, known)
        process.terminate()
        assert process.wait(30) == 0
    return known


def main(run: Callable[[int, int, Path, Callable[[range], Any]], list[Known]], lost: str) -> None:
    """Kill as often as the command line says, from its seed or a drawn one, and say what came of it."""
    kills, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as place, suppress(KeyboardInterrupt):
        learned = run(kills, seed, Path(place), track)
        models, jobs = (sum(len(getattr(known, name)) for known in learned) for name in ("names", "jobs"))
        print(f"{kills} kills: {models} models and {jobs} jobs, {lost}")


if __name__ == "__main__":
    main(lambda *given: [run(*given)], "and nothing lost")
