"""What outlives the process: changes that are written together or not at all, and rows that are read back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Row = Mapping[str, Any]


class StoreRefused(Exception):
    """A database cannot be used; the text is one line for whoever started the service."""


@dataclass(frozen=True)
class Put:
    """A row is to be there with these columns; of one that is there already, the others stay."""

    table: str
    columns: Row


@dataclass(frozen=True)
class Drop:
    """The rows with these columns are to be gone, unless a row of another table (its name, its columns) needs them."""

    table: str
    where: Row = field(default_factory=dict)
    needed: tuple[str, Row] | None = None


Change = Put | Drop


class Store(Protocol):
    """Where changes are written; `durable` says whether they outlive the process."""

    durable: bool
    trouble: str  # why the database took no write when last asked; empty where it did

    @property
    def name(self) -> str:
        """What to call it, without a password."""

    def write(self, *changes: Iterable[Change]) -> None:
        """Write all of the changes or none; when it returns they are on the disk.

        Raises:
            InsufficientStorage, StorageUnavailable: when nothing was written.
        """

    def try_again(self) -> None:
        """Ask whether the trouble is over."""

    def rows(self, table: str, *columns: str, **where: Any) -> Iterator[Row]:
        """Some columns of the rows with these values, in the order of their keys."""

    def close(self) -> None:
        """Let go of the database."""


class MemoryOnly:
    """Keeps nothing: what is not in memory is gone."""

    durable = False
    trouble = ""
    name = "memory"

    def write(self, *changes: Iterable[Change]) -> None:
        pass  # nor are the changes put together, where a generator would do that

    def try_again(self) -> None:
        pass

    def rows(self, table: str, *columns: str, **where: Any) -> Iterator[Row]:
        return iter(())

    def close(self) -> None:
        pass
