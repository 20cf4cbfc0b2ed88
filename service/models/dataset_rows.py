"""Data sets as changes to the store, an upload at a time, and back."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.codecs.safetensors import dump, read
from service.models.dataset import Dataset
from service.models.rows import dumps
from service.models.store import Change, Drop, Put, Store
from service.training.moments import Moments, as_arrays, from_arrays
from service.training.sources import Stored

Arrays = Mapping[str, NDArray[Any]]
MOMENTS = "moments."


def added(dataset: Dataset, source: Stored, rows: Arrays, moments: Moments | None) -> Iterator[Change]:
    """A data set as it is with its latest upload: what that was, its rows where they are kept, and its moments."""
    facts = {"created_at": dataset.created_at, "updated_at": dataset.updated_at, "source": asdict(dataset.source)}
    yield Put("datasets", {"id": dataset.id, "facts": dumps(facts)})
    known = {} if moments is None else {f"{MOMENTS}{name}": of for name, of in as_arrays(moments).items()}
    tensors = {**(rows if dataset.source.kept else {}), **known}
    yield Put(
        "uploads",
        {
            "dataset_id": dataset.id,
            "number": dataset.uploads,
            "facts": dumps(asdict(source)),
            "tensors": dump(tensors),
        },
    )


def removed(dataset_id: str) -> Iterator[Change]:
    """A data set that is gone."""
    yield Drop("datasets", {"id": dataset_id})


def datasets(store: Store, known: Mapping[str, Dataset], **where: Any) -> Iterator[Dataset]:
    """The data sets that the store has, all or those of these ids, oldest first; the known are not read anew."""
    for row in store.rows("datasets", "id", "facts", **where):
        facts = orjson.loads(row["facts"])
        times: dict[str, Any] = {name: datetime.fromisoformat(facts[name]) for name in ("created_at", "updated_at")}
        yield replace(_grown(store, row["id"], known.get(row["id"])), **times)


def as_it_was(store: Store, dataset_id: str, n_samples: int) -> Dataset:
    """A data set when it had so many rows."""
    return _grown(store, dataset_id, n_samples=n_samples)


def _grown(store: Store, dataset_id: str, known: Dataset | None = None, n_samples: int | None = None) -> Dataset:
    """A data set of all its uploads, or until it has so many rows; only those that came after a known one are read."""
    dataset, where = known, dict[str, Any]()
    if known is not None:
        numbers = (row["number"] for row in store.rows("uploads", "number", dataset_id=dataset_id))
        where["number"] = [number for number in numbers if number > known.uploads]
    for row in store.rows("uploads", "facts", "tensors", dataset_id=dataset_id, **where):
        source, tensors = Stored(**orjson.loads(row["facts"])), read(row["tensors"])
        rows = {name: np.array(of) for name, of in tensors.items() if not name.startswith(MOMENTS)}
        sums = {name.removeprefix(MOMENTS): np.array(of) for name, of in tensors.items() if name.startswith(MOMENTS)}
        moments = from_arrays(sums) if sums else None
        if dataset is None:
            at = datetime.min
            dataset = Dataset(
                id=dataset_id,
                source=replace(source, id=dataset_id),
                columns=rows,
                moments=moments,
                created_at=at,
                updated_at=at,
            )
        else:
            dataset = dataset.grown(rows, source, moments, dataset.updated_at)
        if dataset.source.n_samples == n_samples:
            break
    assert dataset is not None, "a data set has a first upload"
    return dataset
