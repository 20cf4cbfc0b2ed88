"""Data sets: rows that are uploaded once and trained on any number of times."""

from collections.abc import AsyncIterator, Mapping

from numpy.typing import ArrayLike

from service.client import arrays
from service.client.aio.connection import AsyncConnection
from service.client.arrays import Tensor
from service.client.calls import at, delete, get, upload
from service.schemas.training import Dataset, DatasetPage

Rows = ArrayLike | Tensor


class AsyncDatasets:
    """What can be done with data sets."""

    _connection: AsyncConnection

    async def upload_dataset(self, x: Rows, y: Rows, weight: Rows | None = None, *, keep_rows: bool = True) -> Dataset:
        """A data set of inputs x (n, in), targets y (n, out) or classes (n,), and perhaps weights of rows (n,).

        Without `keep_rows` only their moments stay, which is what full-batch mse needs, however many rows there are.
        """
        call = upload("/datasets", arrays.rows_file(x, y, weight), keep_rows=keep_rows)
        return await self._connection.read(Dataset, call.once())

    async def upload_moments(self, moments: Mapping[str, ArrayLike]) -> Dataset:
        """A data set of rows that stay where they are, of which only the moments travel.

        Args:
            moments: as `service.cluster.moments.gathered` names them.
        """
        return await self._connection.read(Dataset, upload("/datasets", arrays.moments_file(moments)).once())

    async def append_moments(self, dataset: str | Dataset, moments: Mapping[str, ArrayLike]) -> Dataset:
        """The data set, which keeps no rows, with those of more rows."""
        call = upload(at("datasets", dataset, "rows"), arrays.moments_file(moments))
        return await self._connection.read(Dataset, call.once())

    async def append_rows(self, dataset: str | Dataset, x: Rows, y: Rows, weight: Rows | None = None) -> Dataset:
        """The data set with more rows of the same kind."""
        call = upload(at("datasets", dataset, "rows"), arrays.rows_file(x, y, weight))
        return await self._connection.read(Dataset, call.once())

    async def dataset(self, dataset: str | Dataset) -> Dataset:
        """The data set as it is now."""
        return await self._connection.read(Dataset, get(at("datasets", dataset)))

    def datasets(self) -> AsyncIterator[Dataset]:
        """Every data set, oldest first."""
        return self._connection.pages(DatasetPage, "/datasets")

    async def delete_dataset(self, dataset: str | Dataset) -> None:
        """Delete a data set that no job needs any more."""
        await self._connection.send(delete(at("datasets", dataset)))
