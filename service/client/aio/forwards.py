"""Forward passes, sent and answered as bytes."""

from collections.abc import Iterable
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.client.aio.connection import AsyncConnection
from service.client.answers import array
from service.client.arrays import Tensor, like, to_numpy
from service.client.calls import at, ident, upload
from service.codecs import npy, safetensors
from service.codecs.npy import NPY
from service.schemas.answers import Model

T = TypeVar("T", bound=Tensor)


class AsyncForwards:
    """What runs models."""

    _connection: AsyncConnection

    @overload
    async def forward(self, model: str | Model, inputs: T, version: int | None = None) -> T: ...

    @overload
    async def forward(
        self, model: str | Model, inputs: ArrayLike, version: int | None = None
    ) -> NDArray[np.float32]: ...

    async def forward(self, model: str | Model, inputs: Any, version: int | None = None) -> Any:
        """The outputs (…, out_features) in float32 of a model, or of a `version`, for inputs (…, in_features).

        A torch tensor gives a torch tensor on its device, without a gradient; all else gives an array of numpy.
        """
        call = upload(at("models", model, "forward"), npy.dump(to_numpy(inputs)), NPY.media_type, version=version)
        return like(inputs, array(await self._connection.send(call)))

    async def forward_many(self, items: Iterable[tuple[str | Model, Any]]) -> list[Any]:
        """The outputs for pairs of a model and its inputs, in their order, by one request."""
        named = {f"{ident(model)}/{place}": inputs for place, (model, inputs) in enumerate(items)}
        file = safetensors.dump({name: to_numpy(inputs) for name, inputs in named.items()})
        outputs = await self._connection.tensors(upload("/forward", file))
        return [like(inputs, outputs[name]) for name, inputs in named.items()]
