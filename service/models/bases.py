"""The bases by id: what is known of each, which models stand on it, and the tensors of those that are in memory."""

from collections import Counter
from collections.abc import Collection, Iterable
from operator import attrgetter

from service.errors import BaseBusy, BaseNotFound
from service.models.base import Base, BaseRecord


class Bases:
    """Has no lock of its own: the registry holds one.

    The tensors of a base are in memory for as long as something holds them: models that are in memory themselves, or
    where nothing is stored, the upload.
    """

    def __init__(self, records: Iterable[BaseRecord]) -> None:
        self._records = {record.id: record for record in records}
        self._models: dict[str, set[str]] = {base_id: set() for base_id in self._records}
        self._loaded: dict[str, Base] = {}
        self._holders: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, base_id: str) -> bool:
        return base_id in self._records

    @property
    def ids(self) -> Collection[str]:
        """The ids of all that there are."""
        return self._records.keys()

    def all(self) -> list[BaseRecord]:
        """Every base, in the order of their ids."""
        return sorted(self._records.values(), key=attrgetter("id"))

    def get(self, base_id: str) -> BaseRecord:
        """What is known of a base.

        Raises:
            BaseNotFound
        """
        try:
            return self._records[base_id]
        except KeyError:
            raise BaseNotFound(f"there is no base {base_id}; GET /bases lists those there are") from None

    def models(self, base_id: str) -> Collection[str]:
        """The ids of the models that stand on a base."""
        return self._models.get(base_id, set())

    def must_be_free(self, base_id: str) -> None:
        """Raise BaseBusy while models stand on a base."""
        models = self._models[base_id]
        if models:
            raise BaseBusy(
                f"{len(models)} models stand on base {base_id}, such as {min(models)}; delete them first: "
                f"GET /models?base_id={base_id} lists them"
            )

    def put(self, record: BaseRecord) -> None:
        """Know this of a base."""
        self._records[record.id] = record
        self._models.setdefault(record.id, set())

    def drop(self, base_id: str) -> None:
        """Know nothing more of a base."""
        del self._records[base_id], self._models[base_id]

    def stand(self, base_ids: Iterable[str], model_id: str) -> None:
        """A model stands on bases."""
        for base_id in base_ids:
            self._models[base_id].add(model_id)

    def leave(self, base_ids: Iterable[str], model_id: str) -> None:
        """A model stands on them no longer."""
        for base_id in base_ids:
            self._models[base_id].discard(model_id)

    def without(self, base_id: str, model_ids: Collection[str]) -> bool:
        """Whether a base goes when these models do."""
        return not self._records[base_id].uploaded and self._models[base_id] <= {*model_ids}

    def at_hand(self, base_id: str) -> Base | None:
        """A base whose tensors are in memory."""
        return self._loaded.get(base_id)

    def hold(self, *bases: Base) -> None:
        """Keep the tensors in memory for one holder more."""
        for base in bases:
            self._loaded[base.id] = base
            self._holders[base.id] += 1

    def let_go(self, *base_ids: str) -> int:
        """One holder less; the bytes that are free by that."""
        self._holders.subtract(base_ids)
        free = [base_id for base_id in {*base_ids} if not self._holders[base_id]]
        for base_id in free:
            del self._holders[base_id]
        return sum(self._loaded.pop(base_id).nbytes for base_id in free)
