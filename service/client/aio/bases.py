"""Bases: frozen layers of one's own."""

from collections.abc import AsyncIterator

from numpy.typing import ArrayLike

from service.client import arrays
from service.client.aio.connection import AsyncConnection
from service.client.arrays import Tensor
from service.client.calls import at, delete, get, upload
from service.codecs.layer import DType
from service.codecs.safetensors import Tensors
from service.schemas.answers import Base, BasePage


class AsyncBases:
    """What can be done with bases."""

    _connection: AsyncConnection

    async def upload_base(
        self, weight: ArrayLike | Tensor, bias: ArrayLike | Tensor | None = None, dtype: DType | None = None
    ) -> Base:
        """A base of weight (out, in) and perhaps bias (out,), kept in this dtype: by default in that of the weight."""
        return await self._connection.read(Base, upload("/bases", arrays.layer_file(weight, bias, dtype)).once())

    async def base(self, base: str | Base) -> Base:
        """The base as it is now."""
        return await self._connection.read(Base, get(at("bases", base)))

    def bases(self) -> AsyncIterator[Base]:
        """Every base, in the order of their ids."""
        return self._connection.pages(BasePage, "/bases")

    async def base_weights(self, base: str | Base) -> Tensors:
        """The tensors of a base: `weight` (out, in) and perhaps `bias` (out,)."""
        return await self._connection.tensors(get(at("bases", base, "weights")))

    async def delete_base(self, base: str | Base) -> None:
        """Delete a base on which no model stands."""
        await self._connection.send(delete(at("bases", base)))
