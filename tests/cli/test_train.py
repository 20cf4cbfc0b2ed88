"""Trainings that are launched, followed, left and cancelled from the command line."""

import json
import re
import signal
import tomllib
from pathlib import Path

import numpy as np
import pytest

from service.cli.follow import watch
from service.cli.rows import INLINE_NUMBERS
from service.client import Client
from tests.cli.terminal import done, lora, on_terminal, process
from tests.running import DEADLINE_SECONDS, Service, until

LONG = ("--epochs", 10_000, "--batch-size", 1)


@pytest.fixture
def model(service: Service) -> str:
    return done("create", "--in", 64, "--out", 10, "-q", url=service.url)


@pytest.fixture
def small(service: Service) -> str:
    """A model of three features to two."""
    return done("create", "--in", 3, "--out", 2, "--rank", 1, "-q", url=service.url)


def plan_of(service: Service, *words: object) -> dict[str, object]:
    job = json.loads(done("train", *words, "--json", url=service.url))
    return dict(job["plan"])


def test_the_options_of_a_training_are_its_plan(service: Service, model: str) -> None:
    words = ("--data", "digits", "--epochs", 2, "--lr", 0.1, "--optimizer", "sgd", "--batch-size", 32, "--seed", 3)
    more = ("--schedule", "cosine", "--patience", 4, "--validation", ".25", "--set", "momentum=0.5")
    plan = plan_of(service, model, *words, *more, "--set", "data.split=all")
    assert (plan["epochs"], plan["lr"], plan["optimizer"], plan["batch_size"]) == (2, 0.1, "sgd", 32)
    assert (plan["schedule"], plan["seed"], plan["validation"], plan["momentum"]) == ("cosine", 3, 0.25, 0.5)
    assert plan["loss"] == "cross_entropy"  # which digits are learnt by, unless another is named
    assert plan["data"] == {"kind": "digits", "split": "all"}
    assert plan["early_stopping"] == {"patience": 4, "min_delta": 0.0}


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_a_plan_comes_from_a_file_and_options_go_before_it(
    service: Service, model: str, tmp_path: Path, suffix: str
) -> None:
    text = 'epochs = 7\nlr = 0.5\n[data]\nkind = "teacher"\nteacher_rank = 2\n'
    path = tmp_path / f"plan{suffix}"
    path.write_text(text if suffix == ".toml" else json.dumps(tomllib.loads(text)))
    plan = plan_of(service, model, "--plan", path, "--lr", 0.25, "--set", "data.noise=0.5")
    assert (plan["epochs"], plan["lr"]) == (7, 0.25)
    assert {"kind": "teacher", "teacher_rank": 2, "noise": 0.5}.items() <= dict(plan["data"]).items()  # type: ignore[call-overload]


def test_few_rows_go_within_the_request_and_classes_are_told_by_the_loss(service: Service, small: str) -> None:
    text = b"a,b,c,label\n" + b"1,2,3,0\n4,5,6,1\n" * 4
    words = ("train", small, "--data", "-", "--target", "label", "--loss", "cross_entropy", "--json")
    job = json.loads(done(*words, url=service.url, given=text))
    assert {"kind": "inline", "targets": "classes", "n_samples": 8}.items() <= job["plan"]["data"].items()
    both = ("train", small, "--data", "-", "--target", "label", "--target", "c", "--set", "seed=1", "--json")
    refused = lora(*both, url=service.url, given=text)
    assert refused.exit_code == 2
    assert "data.x has shape [8, 2]; it must be [8, 3]" in refused.stderr


def test_many_rows_are_uploaded_and_can_be_used_again(service: Service, small: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((INLINE_NUMBERS // 3, 3)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x, y=x[:, :2])
    ended = lora("train", small, "--data", tmp_path / "rows.npz", "--json", url=service.url)
    data = json.loads(ended.stdout)["plan"]["data"]
    assert (data["kind"], data["n_samples"]) == ("dataset", len(x))
    assert f"lora rm {data['id']}" in ended.stderr
    assert dict(plan_of(service, small, "--data", data["id"])["data"])["digest"] == data["digest"]  # type: ignore[call-overload]
    done("train", small, "--data", data["id"], "--follow", url=service.url)
    assert data["id"] in done("datasets", "-q", url=service.url).split()
    assert done("rm", data["id"], url=service.url) == f"{data['id']} is deleted"


def test_follow_prints_a_line_for_each_epoch_and_the_job_at_the_end(service: Service, model: str) -> None:
    ended = lora("train", model, "--epochs", 3, "--follow", url=service.url)
    assert ended.exit_code == 0, ended.stderr
    assert re.findall(r"^epoch (\d)/3  loss \d", ended.stderr, re.MULTILINE) == ["1", "2", "3"]
    assert ended.stderr.splitlines()[-1] == "succeeded"
    assert "state\tsucceeded\n" in ended.stdout


def test_follow_with_json_is_a_line_for_each_event(service: Service, model: str) -> None:
    events = [
        json.loads(line) for line in done("train", model, "--epochs", 2, "-f", "--json", url=service.url).split("\n")
    ]
    assert [event["event"] for event in events[:1] + events[-1:]] == ["accepted", "done"]
    assert [event["id"] for event in events] == list(range(len(events)))
    assert [event["data"]["epoch"] for event in events if event["event"] == "epoch"] == [1, 2]
    again = done("show", events[0]["data"]["id"], "--follow", "--json", url=service.url).split("\n")
    assert [json.loads(line)["id"] for line in again] == [event["id"] for event in events]


def test_a_job_that_fails_ends_with_status_1_and_says_why(service: Service, model: str) -> None:
    words = ("train", model, "--optimizer", "sgd", "--lr", 1e6, "--epochs", 100, "--follow")
    ended = lora(*words, url=service.url)
    assert ended.exit_code == 1
    assert "failed (diverged)" in ended.stderr
    assert re.search(r"^lora: job_\w+ is failed: ", ended.stderr.splitlines()[-1])
    assert lora(*words, "--json", url=service.url).exit_code == 1


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(service: Service, model: str) -> None:
    with process("train", model, *LONG, "--follow", LORA_URL=service.url) as started:
        try:
            assert started.stderr is not None
            assert any(line.startswith("epoch 1/") for line in started.stderr)
            started.send_signal(signal.SIGINT)
            out, said = started.communicate(timeout=DEADLINE_SECONDS)
        finally:
            started.kill()
    assert (started.returncode, out) == (130, "")
    (job,) = set(re.findall(r"job_\w+", said))
    assert f"`lora show {job} --follow` comes back to it, `lora cancel {job}` ends it" in said.splitlines()[-1]
    assert service.http.get(f"/jobs/{job}").json()["state"] == "running"
    cancelled = json.loads(done("cancel", job, "--json", url=service.url))
    assert [each["id"] for each in cancelled] == [job]
    until(lambda: service.http.get(f"/jobs/{job}").json()["state"] == "cancelled")


def test_a_terminal_shows_a_bar_with_epoch_loss_and_time_left(service: Service, model: str) -> None:
    with on_terminal("train", model, *LONG, "--follow", LORA_URL=service.url) as terminal:
        terminal.shows(r"running +━+.* \d+/10000 loss \d+\.\d{4} (\d+:\d\d:\d\d|-:--:--)")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ended() == 130
    (job,) = set(re.findall(r"lora cancel (job_\w+)", terminal.seen))
    done("cancel", job, url=service.url)


def test_a_job_is_followed_without_a_terminal_too(service: Service, model: str) -> None:
    with Client(service.url) as client:
        assert watch(client.train(model, epochs=1), as_json=False).state == "succeeded"


def test_sweeps_are_tried_and_told_best_first(service: Service) -> None:
    words = ("sweep", "--in", 6, "--out", 4, "--data", "teacher", "--epochs", 5, "--over", "rank=1,2")
    told = json.loads(done(*words, "--over", "lr=0.01..0.1:2", "--follow", "--json", url=service.url))
    assert (told["state"], told["counts"]) == ("ended", {"succeeded": 4})
    losses = [each["validation_loss"] for each in told["leaderboard"]]
    assert losses == sorted(losses)
    assert {(each["settings"]["rank"], each["settings"]["lr"]) for each in told["leaderboard"]} == {
        (rank, lr) for rank in (1, 2) for lr in (0.01, 0.1)
    }
    rows = [line.split("\t") for line in done("show", told["id"], url=service.url).splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert told["id"] in done("sweeps", "-q", url=service.url).split()
    done("rm", told["id"], url=service.url)


def test_a_sweep_is_cancelled_beside_a_job_and_keeps_its_models(service: Service, model: str) -> None:
    job = done("train", model, *LONG, "-q", url=service.url)
    sweep = done("sweep", "--in", 6, "--out", 4, *LONG, "--over", "rank=1,2", "-q", url=service.url)
    refused = lora("rm", sweep, url=service.url)
    assert (refused.exit_code, refused.stderr.count("\n")) == (4, 1)
    assert "`lora cancel SWEEP` ends its jobs and keeps its models" in refused.stderr
    rows = [line.split("\t") for line in done("cancel", sweep, job, url=service.url).splitlines()]
    assert {row[0]: row[1 if row[0] == sweep else 2] for row in rows} == {sweep: "ended", job: "cancelled"}
    (told,) = json.loads(done("cancel", sweep, "--json", url=service.url))
    assert (told["id"], told["counts"]) == (sweep, {"cancelled": 2})
    assert len([done("show", each["model_id"], url=service.url) for each in told["leaderboard"]]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "lr"), "--set 'lr' is not understood; it is name=value"),
        (("--set", "epoch=3"), "epoch"),
        (("--set", "wait=3"), "--set wait names no field"),
        (("--set", "lr=1", "--set", "lr.a=2"), "which has nothing within"),
        (("--epochs", "0"), "epochs is 0"),
        (("--data", "nowhere.npz"), "nowhere.npz: No such file or directory"),
        (("--plan", __file__), "is neither JSON nor, by its name, TOML"),
    ],
)
def test_a_plan_that_is_none_is_told_in_one_line(
    service: Service, model: str, words: tuple[str, ...], says: str
) -> None:
    ended = lora("train", model, *words, url=service.url)
    assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert says in ended.stderr


def test_a_sweep_whose_training_fails_ends_with_status_1(service: Service) -> None:
    words = ("sweep", "--in", 6, "--out", 4, "--over", "lr=1,1000000", "--optimizer", "sgd", "--follow")
    assert lora(*words, url=service.url).exit_code == 1


def test_what_is_set_of_a_sweep_is_of_its_model_or_its_training(service: Service) -> None:
    words = ("sweep", "--in", 6, "--out", 4, "--over", "rank=1,2", "--set")
    ended = lora(*words, "weight_decay=0.1", url=service.url)
    assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
    assert "it is model.weight_decay or train.weight_decay" in ended.stderr
    assert lora(*words, "train.weight_decay=0.1", url=service.url).exit_code == 0


def test_a_loss_that_is_set_tells_what_the_targets_are(service: Service, small: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("1,2,0\n3,4,1\n")
    words = ("train", small, "--data", tmp_path / "rows.csv", "--target", "-1", "--follow")
    assert lora(*words, "--set", "loss=cross_entropy", url=service.url).exit_code in (0, 2)


@pytest.mark.parametrize("over", ["rank", "rank=", "lr=0.1..1", "lr=a..b:3"])
def test_what_a_sweep_cannot_try_is_told_in_one_line(service: Service, over: str) -> None:
    ended = lora("sweep", "--in", 6, "--out", 4, "--over", over, url=service.url)
    assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
    assert repr(over) in ended.stderr
