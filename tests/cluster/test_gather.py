"""`lora gather` makes a data set of rows that stay where they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.client import Client
from tests.cli.terminal import lora
from tests.cluster.nodes import Nodes
from tests.running import Service

# Ray Data warns of settings that it makes itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_data_set_of_sums_trains_to_the_same_losses_as_its_rows(service: Service, cluster: Nodes, tmp_path: Path):
    draw = np.random.default_rng(0)
    x, y = (draw.standard_normal((2_000, width)).astype(np.float32) for width in (8, 2))
    np.save(tmp_path / "rows.npy", np.hstack([x, y]))
    words = (tmp_path / "rows.npy", "--target", "-2", "--target", "-1", "--ray", cluster.address)
    made = lora("gather", *words, "--url", service.url, "--json")
    assert made.exit_code == 0, made.stderr
    dataset = json.loads(made.stdout)
    assert (dataset["n_samples"], dataset["keep_rows"], dataset["moments"]) == (2_000, False, True)
    assert dataset["bytes"] < x.nbytes
    with Client(service.url) as client:
        sent = client.upload_dataset(x, y)
        losses = []
        for id in (dataset["id"], sent.id):
            model = client.create(in_features=8, out_features=2, rank=2, seed=1)
            job = client.train(model.id, data={"kind": "dataset", "id": id}, epochs=20, seed=1, wait=True)
            losses.append(job.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["nowhere.parquet"], "nowhere.parquet"),
        (["rows.txt"], "rows.txt is in no form that is read here; those are parquet, csv, npy"),
        (["rows.npy", "--ray", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1: "),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(service: Service, cluster: Nodes, words: list[str], wrong: str) -> None:
    ended = lora("gather", "--ray", cluster.address, "--target", "y", "--url", service.url, *words)
    assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
    assert wrong in ended.stderr
