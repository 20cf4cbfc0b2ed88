"""Data sets that are uploaded in pieces: each checked, converted to float32, and gathered into moments."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

from service.clock import instant
from service.codecs.message import Arrays
from service.engine.uploads import Upload, must_go_on, read, reading_bytes
from service.ids import Mint
from service.models import dataset_rows
from service.models.budget import Budget
from service.models.dataset import Dataset
from service.models.shelf import Also, Shelf
from service.models.store import News, Store
from service.training.sources import Stored


class Datasets(Shelf):
    """The data sets, and how rows get into them."""

    def __init__(self, max_datasets: int, max_moments_bytes: int, budget: Budget, store: Store | None = None) -> None:
        super().__init__(max_datasets, budget, store)
        self._max_moments_bytes = max_moments_bytes
        self._new_id = Mint("dat", (dataset.id for dataset in self.all()))

    def learn(self, news: News) -> list[str]:
        """As `Shelf.learn`; ids that are made here are greater."""
        found = super().learn(news)
        for dataset_id in found:
            self._new_id.saw(dataset_id)
        return found

    def upload(self, arrays: Arrays, *, keep_rows: bool = True, also: Also = lambda dataset: ()) -> Dataset:
        """A new data set of rows x, y and perhaps weight, or of moments; without `keep_rows` only those are kept.

        Args:
            also: what is to be stored together with it.

        Raises:
            Validation, ShapeMismatch, NonFinite, LimitExceeded, CapacityExhausted
        """
        self.must_have_room()
        with self._read(arrays, keep_rows) as sent:
            return self._added(sent, also)

    def _added(self, sent: Upload, also: Also) -> Dataset:
        def make() -> Dataset:
            dataset_id, at = self._new_id(), instant().wall
            return Dataset(
                id=dataset_id,
                source=replace(sent.source, id=dataset_id),
                columns=sent.rows if sent.source.kept else {},
                moments=sent.moments,
                created_at=at,
                updated_at=at,
            )

        return self.add(make, sent.nbytes, also)

    def append(self, dataset_id: str, arrays: Arrays, also: Also = lambda dataset: ()) -> Dataset:
        """The data set with more rows, which jobs from now on are trained on.

        Args:
            also: what is to be stored together with them.

        Raises:
            DatasetNotFound, Validation, ShapeMismatch, NonFinite, LimitExceeded, CapacityExhausted
        """
        with self._read(arrays, self.get(dataset_id).source.kept) as sent:

            def room(dataset: Dataset) -> int:
                must_go_on(dataset.source, sent.source)
                return dataset.room_needed(sent.source)

            return self.grow(
                dataset_id,
                room,
                lambda dataset: dataset.grown(sent.rows, sent.source, sent.moments, instant().wall),
                lambda grown: chain(dataset_rows.added(grown, sent.source, sent.rows, sent.moments), also(grown)),
            )

    def source(self, dataset_id: str) -> Stored:
        """A data set as what to train on.

        Raises:
            DatasetNotFound
        """
        return self.get(dataset_id).source

    @contextmanager
    def _read(self, arrays: Arrays, keep_rows: bool) -> Iterator[Upload]:
        """What was sent, once there is memory to look at it."""
        with self.budget.held(reading_bytes(arrays, self._max_moments_bytes)):
            yield read(arrays, self._max_moments_bytes, keep_rows)
