"""Models from their creation to their deletion, and what else a service holds, by the commands."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from service.ids import MODEL_ID, matches
from tests.cli.terminal import done, lora, on_terminal
from tests.running import Service


@pytest.fixture
def model(service: Service) -> str:
    """The id of a model of 4 to 3 features."""
    return done("create", "--in", 4, "--out", 3, "--rank", 2, "--seed", 1, "-q", url=service.url)


def test_create_takes_every_field_by_an_option_or_by_set(service: Service) -> None:
    words = ("--in", 6, "--out", 4, "--rank", 2, "--alpha", 8, "--init", "gaussian", "--name", "n", "--seed", 5)
    sets = ("--set", "use_dora=true", "--set", "metadata.team=a", "--set", "dropout=0.5")
    made = json.loads(done("create", *words, *sets, "--json", url=service.url))
    assert (made["in_features"], made["out_features"], made["rank"], made["alpha"]) == (6, 4, 2, 8.0)
    assert (made["init"], made["name"], made["seed"], made["use_dora"]) == ("gaussian", "n", 5, True)
    assert (made["metadata"], made["dropout"]) == ({"team": "a"}, 0.5)


def test_create_stands_on_a_file_or_a_base_that_is_known(service: Service, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    save_file({"weight": numbers.standard_normal((3, 5)).astype(np.float32)}, tmp_path / "layer.safetensors")
    first, again = (
        json.loads(done("create", "--base", base, "--rank", 1, "--json", url=service.url))
        for base in (tmp_path / "layer.safetensors",) * 2
    )
    assert first["base_id"] == again["base_id"]
    begun = json.loads(done("create", "--base", first["base_id"][:20], "--rank", 2, "--json", url=service.url))
    assert (begun["base_id"], begun["in_features"], begun["out_features"]) == (first["base_id"], 5, 3)


def test_create_reads_layers_from_a_file(service: Service, tmp_path: Path) -> None:
    layers = [
        {"in_features": 4, "out_features": 3, "rank": 1, "activation": "relu"},
        {"in_features": 3, "out_features": 2},
    ]
    layers[1]["rank"] = 2
    (tmp_path / "layers.json").write_text(json.dumps(layers))
    made = json.loads(done("create", "--layers", tmp_path / "layers.json", "--json", url=service.url))
    assert [(layer["rank"], layer["activation"]) for layer in made["layers"]] == [(1, "relu"), (2, None)]


def test_a_list_is_lines_with_tabs_and_whole_ids(service: Service, model: str) -> None:
    lines = [line.split("\t") for line in done("models", url=service.url).splitlines()]
    assert model in [line[0] for line in lines]
    assert all(matches(MODEL_ID, line[0]) and len(line) == 8 for line in lines)
    assert model in done("models", "-q", url=service.url).split()
    assert model in [each["id"] for each in json.loads(done("models", "--json", url=service.url))]
    assert json.loads(done("models", "--name", "nobody is called so", "--json", url=service.url)) == []
    base = service.http.get(f"/models/{model}").json()["base_id"]
    assert model in done("models", "--base", base[:30], "-q", url=service.url).split()


def test_models_are_searched_for_and_no_more_are_shown_than_are_wanted(service: Service) -> None:
    ids = [
        done("create", "--in", 2, "--out", 2, "--rank", 1, "--name", f"Tenant {n}", "-q", url=service.url)
        for n in range(3)
    ]
    assert done("models", "--search", "tenant", "-q", url=service.url).split() == ids
    assert done("models", "--search", "tenant", "--limit", 2, "-q", url=service.url).split() == ids[:2]
    assert done("models", "--search", ids[1][4:], "-q", url=service.url).split() == [ids[1]]
    assert len(json.loads(done("models", "--limit", 1, "--json", url=service.url))) == 1


def test_rename_gives_a_model_another_name(service: Service, model: str) -> None:
    told = dict(line.split("\t") for line in done("rename", model, "first name", url=service.url).splitlines())
    assert (told["id"], told["name"]) == (model, "first name")
    renamed = json.loads(done("rename", "first name", "second name", "--json", url=service.url))
    assert (renamed["id"], renamed["name"]) == (model, "second name")
    assert json.loads(done("models", "--name", "first name", "--json", url=service.url)) == []


def test_rollback_publishes_an_earlier_version_by_default_the_one_before(service: Service, model: str) -> None:
    done("train", model, "--epochs", 1, "--follow", url=service.url)
    assert json.loads(done("rollback", model, "--json", url=service.url))["version"] == 2
    assert dict(line.split("\t") for line in done("rollback", model, 1, url=service.url).splitlines())["version"] == "3"
    lines = [line.split("\t")[:2] for line in done("versions", model, url=service.url).splitlines()]
    assert lines == [["3", "rollback"], ["2", "rollback"], ["1", "training"], ["0", "created"]]
    kept = json.loads(done("versions", model, "--json", url=service.url))
    assert [each["parent"] for each in kept] == [1, 0, 0, None]
    ended = lora("rollback", model, 7, url=service.url)
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert "`lora versions MODEL` lists those that are kept" in ended.stderr


def test_show_tells_of_anything_by_its_id(service: Service, model: str) -> None:
    told = dict(line.split("\t") for line in done("show", model, url=service.url).splitlines())
    assert (told["id"], told["rank"], told["parameters.trainable"]) == (model, "2", "14")
    base = json.loads(done("show", told["base_id"], "--json", url=service.url))
    assert (base["id"], base["in_features"]) == (told["base_id"], 4)
    job = done("train", model, "--epochs", 1, "-q", url=service.url)
    assert json.loads(done("show", job, "--json", url=service.url))["model_id"] == model
    versions = json.loads(done("show", model, "--versions", "--json", url=service.url))
    assert versions[-1]["version"] == 0


def test_a_name_or_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(service: Service) -> None:
    named = done("create", "--in", 2, "--out", 2, "--rank", 1, "--name", "base_of one", "-q", url=service.url)
    for text in ("base_of one", named, named[:-1]):
        assert json.loads(done("show", text, "--json", url=service.url))["id"] == named
    done("create", "--in", 2, "--out", 2, "--rank", 1, "--name", "base_of one", url=service.url)
    ended = lora("show", "base_of one", url=service.url)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert named in ended.stderr


def test_rm_deletes_several_things_at_once_or_none(service: Service, model: str) -> None:
    other = done("create", "--in", 2, "--out", 2, "--rank", 1, "-q", url=service.url)
    missing = "mdl_" + "0" * 26
    assert lora("rm", model, missing, url=service.url).exit_code == 3
    assert service.http.get(f"/models/{model}").status_code == 200
    job = done("train", model, "--follow", "-q", url=service.url)
    gone = json.loads(done("rm", job, model, other, model[:-1], job, "--json", url=service.url))
    assert gone == {"deleted": [job, model, other]}
    assert service.http.get(f"/models/{model}").status_code == 404
    assert service.http.get(f"/jobs/{job}").status_code == 404


def test_rm_takes_a_model_that_trains_only_by_force(service: Service, model: str) -> None:
    done("train", model, "--epochs", 10_000, "--set", "data.kind=random", "--batch-size", 1, url=service.url)
    refused = lora("rm", model, url=service.url)
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "--force" in refused.stderr
    assert done("rm", model, "--force", url=service.url) == f"{model} is deleted"


def test_rm_asks_on_a_terminal(service: Service, model: str) -> None:
    with on_terminal("rm", model, LORA_URL=service.url) as terminal:
        terminal.shows(rf"Delete the model {model}\?")
        terminal.press("n\n")
        assert terminal.ended() == 0
    assert service.http.get(f"/models/{model}").status_code == 200
    with on_terminal("rm", model, LORA_URL=service.url) as terminal:
        terminal.shows(rf"Delete the model {model}\?")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ended() == 130
    assert service.http.get(f"/models/{model}").status_code == 200
    with on_terminal("rm", model, "--yes", LORA_URL=service.url) as terminal:
        assert terminal.ended() == 0
    assert service.http.get(f"/models/{model}").status_code == 404


def test_export_writes_what_import_reads(service: Service, model: str, tmp_path: Path) -> None:
    service.http.post(f"/models/{model}/train", json={"epochs": 1}, headers={"Prefer": "wait=30"})
    told = json.loads(done("export", model, tmp_path / "adapter", "--module", "fc", "--json", url=service.url))
    assert told == {"model_id": model, "path": str(tmp_path / "adapter")}
    base_id = service.http.get(f"/models/{model}").json()["base_id"]
    again = done("import", tmp_path / "adapter", "--base", base_id, "--name", "again", "-q", url=service.url)
    for each in (model, again):
        done("export", each, tmp_path / f"{each}.safetensors", "--merged", url=service.url)
    one, other = (load_file(tmp_path / f"{each}.safetensors")["weight"] for each in (model, again))
    assert one == pytest.approx(other, abs=1e-6)
    done("export", model, tmp_path / "all.safetensors", "--weights", url=service.url)
    assert {"base.weight", "lora_A.weight", "lora_B.weight"} <= set(load_file(tmp_path / "all.safetensors"))
    earlier = tmp_path / "earlier.safetensors"
    done("export", model, earlier, "--weights", "--version", 0, url=service.url)
    assert not load_file(earlier)["lora_B.weight"].any()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--merged", "--weights"), "take one of them"),
        (("--merged", "--module", "fc"), "has no modules"),
        (("--version", "0"), "is of the current version"),
    ],
)
def test_export_says_what_does_not_go_together(
    service: Service, model: str, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    ended = lora("export", model, tmp_path / "to", *words, url=service.url)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert says in ended.stderr


def test_rank_profile_tells_what_each_rank_reaches(service: Service, model: str) -> None:
    words = ("rank-profile", model, "--data", "teacher", "--set", "teacher_rank=2", "--set", "seed=1")
    ranks = [line.split("\t") for line in done(*words, url=service.url).splitlines()]
    assert [rank for rank, _, _ in ranks] == ["0", "1", "2", "3"]
    assert float(ranks[2][1]) < 1e-6 < float(ranks[1][1])
    profile = json.loads(done(*words, "--json", url=service.url))
    assert (profile["model_id"], profile["data"]["teacher_rank"]) == (model, 2)


def test_a_table_on_a_terminal_has_a_heading(service: Service, model: str) -> None:
    with on_terminal("models", LORA_URL=service.url, NO_COLOR="1") as terminal:
        assert terminal.ended() == 0
    assert terminal.seen.splitlines()[0].split() == ["id", "name", "in→out", "rank", "params", "version", "loss", "age"]
    assert model in terminal.seen
    assert "\x1b[3" not in terminal.written  # no colour
