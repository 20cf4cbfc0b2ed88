"""What outlives the process: changes that are written together or not at all, and rows that are read back."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

Row = Mapping[str, Any]


class Leases(Protocol):
    """Which server has which job, as `service.models.leases` has it."""

    seconds: float

    def claim(self, job_ids: Sequence[str]) -> Mapping[str, int]:
        """Take those of the jobs that nobody has, and that come first on their models; the fence of each."""

    def renew(self, job_ids: Collection[str]) -> Collection[str]:
        """Hold jobs for longer; those of them that this server has. Others that it has lapse."""

    def free(self, job_ids: Collection[str]) -> list[str]:
        """Those of the jobs that have not ended and that nobody has."""

    def release(self, job_ids: Collection[str]) -> None:
        """Leave jobs to others."""


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


@dataclass(frozen=True)
class Claim:
    """Nothing is to be written unless this server still has the job that it took under this number."""

    job_id: str
    fence: int


Change = Put | Drop | Claim


class ClaimLost(Exception):
    """Another server has the job meanwhile, so nothing was written."""


@dataclass(frozen=True)
class News:
    """The keys of the rows that other servers have changed, by table; of `everything` all that there are."""

    keys: Mapping[str, Collection[str]]
    everything: bool = False

    def of(self, table: str, known: Iterable[str]) -> list[str]:
        """The keys of a table's rows that may be other than what is known, sorted."""
        told = {*self.keys.get(table, ())}
        return sorted(told.union(known) if self.everything else told)


class Store(Protocol):
    """Where changes are written; `durable` says whether they outlive the process, `shared` whether others write there.

    What is written to a shared store follows from what is known in a `turn`.
    """

    durable: bool
    shared: bool
    leases: "Leases | None"  # by which servers that share it share out the jobs
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
        """Some columns of the rows with these values, or one of a list of values, in the order of their keys."""

    def turn(self) -> AbstractContextManager[None]:
        """Nobody else writes until it is over, and all that others wrote is known; it may be taken within a turn.

        Raises:
            StorageUnavailable
        """

    def moment(self) -> AbstractContextManager[None]:
        """All rows that this thread reads meanwhile are those of one moment, from which on `catch_up` learns."""

    def follow(self, learn: Callable[[News], None]) -> None:
        """Tell of what others write from now on: in each turn, and soon after they did."""

    def catch_up(self) -> None:
        """Learn what others wrote up to now.

        Raises:
            StorageUnavailable
        """

    @property
    def silent_seconds(self) -> float:
        """How long a store that others write to has not answered, by which what they wrote of late may be unknown."""

    def close(self) -> None:
        """Let go of the database."""


class Alone:
    """What a store need not do to which nobody else writes."""

    shared = False
    leases: "Leases | None" = None

    def turn(self) -> AbstractContextManager[None]:
        return nullcontext()

    def moment(self) -> AbstractContextManager[None]:
        return nullcontext()

    def follow(self, learn: Callable[[News], None]) -> None:
        pass

    def catch_up(self) -> None:
        pass

    @property
    def silent_seconds(self) -> float:
        return 0.0


class MemoryOnly(Alone):
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
