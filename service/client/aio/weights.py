"""Weights: take them, bring them, and exchange adapters with PEFT."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.client import folder as folders
from service.client.aio.models import AsyncModels
from service.client.calls import at, get, put
from service.client.folder import CONFIG, TENSORS
from service.client.problems import Problem, Unreachable
from service.codecs.safetensors import Tensors
from service.schemas.answers import Base, Model


class AsyncWeights(AsyncModels):
    """What can be done with the weights of models."""

    async def weights(self, model: str | Model, version: int | None = None) -> Tensors:
        """All tensors of a model, or of a `version`, by name."""
        return await self._connection.tensors(get(at("models", model, "weights"), version=version))

    async def merged(self, model: str | Model, version: int | None = None) -> Tensors:
        """The model as one plain layer: `weight` (out, in) and perhaps `bias` (out,)."""
        return await self._connection.tensors(get(at("models", model, "merged"), version=version))

    async def adapter(self, model: str | Model, module: str | None = None) -> tuple[dict[str, Any], bytes]:
        """What `adapter_config.json` and `adapter_model.safetensors` hold, for one module of a network."""
        config = await self._connection.read(dict[str, Any], get(at("models", model, "adapter", CONFIG), module=module))
        return config, (
            await self._connection.send(get(at("models", model, "adapter", TENSORS), module=module))
        ).content

    async def put_adapter(self, model: str | Model, file: str | Path | bytes, module: str | None = None) -> Model:
        """The model with the weights of a file, or of its bytes; `module` is one of `adapter_modules`."""
        body = file if isinstance(file, bytes) else await asyncio.to_thread(Path(file).read_bytes)
        return await self._connection.read(Model, put(at("models", model, "adapter"), body, module=module))

    async def export_peft(self, model: str | Model, folder: str | Path, module: str | None = None) -> None:
        """Write the folder of an adapter on a `module`, which `peft.PeftModel.from_pretrained` loads."""
        await asyncio.to_thread(folders.write, folder, *await self.adapter(model, module))

    async def import_peft(
        self,
        folder: str | Path,
        base: str | Base | None = None,
        module: str | Sequence[str] | None = None,
        layers: Sequence[Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> Model:
        """A new model of an adapter that PEFT saved; no other module of the folder is sent.

        With `layers`, several modules become one model, whose layers they are in their order.

        Args:
            base: the layer that it is for; without one the settings hold the sizes of a fresh one.
            module: which one to take, or which ones, where the folder has others too.
            layers: of each, its `base_id` or the sizes of a fresh base, and perhaps the `activation` behind it.
            settings: fields of `POST /models`, which go before what the folder says.

        Raises:
            Validation, BadSafetensors: for an adapter that no model here can be.
        """
        adapter = await asyncio.to_thread(folders.read, folder, module, layers)
        on = {} if base is None else {"base_id": base}
        model = await self.create(**(adapter.settings | on | settings))
        try:
            return await self.put_adapter(model, adapter.tensors)
        except (Problem, Unreachable):
            with suppress(Problem, Unreachable):  # what went wrong first is what counts
                await self.delete(model)
            raise
