"""The data sets in memory, keyed by id."""

import threading
from collections.abc import Callable, Iterable
from weakref import finalize

from service.errors import CapacityExhausted, DatasetNotFound
from service.models import dataset_rows
from service.models.budget import Budget
from service.models.dataset import Dataset
from service.models.store import Change, MemoryOnly, News, Store

Also = Callable[[Dataset], Iterable[Change]]


class Shelf:
    """Data sets by id, in order of creation; what they take is counted in the budget for as long as they are here."""

    def __init__(self, max_datasets: int, budget: Budget, store: Store | None = None) -> None:
        self.max_datasets = max_datasets
        self.budget = budget
        self._store = store or MemoryOnly()
        self._datasets = {dataset.id: dataset for dataset in dataset_rows.datasets(self._store, {})}
        budget.take(sum(dataset.nbytes for dataset in self._datasets.values()))
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._datasets)

    def all(self) -> list[Dataset]:
        """Every data set, oldest first; whoever asks waits for nobody who writes."""
        return list(self._datasets.values())

    def get(self, dataset_id: str) -> Dataset:
        """The data set as it is now.

        Raises:
            DatasetNotFound
        """
        try:
            return self._datasets[dataset_id]
        except KeyError:
            raise DatasetNotFound(f"there is no data set {dataset_id}; GET /datasets lists those there are") from None

    def must_have_room(self) -> None:
        """Raise CapacityExhausted when there are as many data sets as there may be."""
        if len(self._datasets) >= self.max_datasets:
            raise CapacityExhausted(
                f"there are {len(self._datasets)} data sets, as many as there may be; "
                "delete some or raise LORA_MAX_DATASETS",
                in_use=len(self._datasets),
                limit=self.max_datasets,
            )

    def add(self, make: Callable[[], Dataset], size: int, also: Also = lambda dataset: ()) -> Dataset:
        """Take in a new data set of so many bytes.

        Args:
            also: what is to be stored in the same transaction.

        Raises:
            CapacityExhausted: when there are too many, or no bytes left for this one.
            InsufficientStorage, StorageUnavailable: when it could not be stored.
        """
        with self._store.turn(), self._lock:
            self.must_have_room()
            with self.budget.kept(size):
                dataset = make()
                rows = dataset_rows.added(dataset, dataset.source, dataset.columns, dataset.moments)
                self._store.write(rows, also(dataset))
            self._datasets[dataset.id] = dataset
            return dataset

    def grow(
        self,
        dataset_id: str,
        room: Callable[[Dataset], int],
        change: Callable[[Dataset], Dataset],
        stored: Also = lambda grown: (),
    ) -> Dataset:
        """Put the grown data set in the place of the old one, once there is room for it.

        Args:
            stored: what of the grown one is to be stored.

        Raises:
            DatasetNotFound
            CapacityExhausted: when the bytes that `room` asks for are not left.
            InsufficientStorage, StorageUnavailable: when it could not be stored.
        """
        with self._store.turn(), self._lock:
            dataset = self.get(dataset_id)
            needed = room(dataset) + dataset.moments_bytes
            with self.budget.kept(needed):
                grown = change(dataset)
                self._store.write(stored(grown))
            self._datasets[dataset_id] = grown
            if dataset.moments is not None:  # jobs that wait may hold on to them for long
                finalize(dataset.moments.xx, self.budget.give, dataset.moments_bytes)
            return grown

    def learn(self, news: News) -> list[str]:
        """Take in what other servers did to data sets; the ids of those that are here now.

        They are counted though there may be no bytes left: whoever took them in has asked.
        """
        with self._lock:
            ids = news.of("datasets", self._datasets)
            found = {dataset.id: dataset for dataset in dataset_rows.datasets(self._store, self._datasets, id=ids)}
            for dataset_id in ids:
                known = self._datasets.get(dataset_id)
                if known is not None:
                    self.budget.give(known.nbytes)
                if dataset_id in found:
                    self.budget.give(-found[dataset_id].nbytes)
                    self._datasets[dataset_id] = found[dataset_id]
                elif known is not None:
                    del self._datasets[dataset_id]
            return [*found]

    def remove(self, dataset_id: str) -> None:
        """Forget a data set.

        Raises:
            DatasetNotFound
        """
        with self._store.turn(), self._lock:
            dataset = self.get(dataset_id)
            self._store.write(dataset_rows.removed(dataset_id))
            self.budget.give(dataset.nbytes)
            del self._datasets[dataset_id]
