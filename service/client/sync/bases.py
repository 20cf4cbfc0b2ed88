"""Bases: frozen layers of one's own."""

from collections.abc import Iterator

from numpy.typing import ArrayLike

from service.client import arrays
from service.client.arrays import Tensor
from service.client.calls import at, delete, get, upload
from service.client.sync.connection import Connection
from service.codecs.layer import DType
from service.codecs.safetensors import Tensors
from service.schemas.answers import Base, BasePage


class Bases:
    """What can be done with bases."""

    _connection: Connection

    def upload_base(
        self, weight: ArrayLike | Tensor, bias: ArrayLike | Tensor | None = None, dtype: DType | None = None
    ) -> Base:
        """A base of weight (out, in) and perhaps bias (out,), kept in this dtype: by default in that of the weight."""
        return self._connection.read(Base, upload("/bases", arrays.layer_file(weight, bias, dtype)).once())

    def base(self, base: str | Base) -> Base:
        """The base as it is now."""
        return self._connection.read(Base, get(at("bases", base)))

    def bases(self) -> Iterator[Base]:
        """Every base, in the order of their ids."""
        return self._connection.pages(BasePage, "/bases")

    def base_weights(self, base: str | Base) -> Tensors:
        """The tensors of a base: `weight` (out, in) and perhaps `bias` (out,)."""
        return self._connection.tensors(get(at("bases", base, "weights")))

    def delete_base(self, base: str | Base) -> None:
        """Delete a base on which no model stands."""
        self._connection.send(delete(at("bases", base)))
