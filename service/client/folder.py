"""The folder of an adapter, as PEFT saves it: `adapter_config.json` beside `adapter_model.safetensors`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from service.codecs import peft, peft_settings

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
# What a model of several layers has for each of them.
OF_LAYERS = {"rank", "alpha"}


@dataclass(frozen=True)
class Adapter:
    """An adapter out of a folder: the fields of `POST /models` that it asks for, and a file of its tensors alone."""

    settings: dict[str, Any]
    tensors: bytes


def adapter_modules(file: str | Path) -> list[str]:
    """The modules that an `adapter_model.safetensors` adapts.

    Raises:
        BadSafetensors: for a file that cannot be read.
    """
    return peft.modules(Path(file).read_bytes())


def write(folder: str | Path, config: Mapping[str, Any], tensors: bytes) -> None:
    """Write the two files, each of which is there as a whole or not at all."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    replace(Path(folder, TENSORS), tensors)
    replace(Path(folder, CONFIG), orjson.dumps(config, option=orjson.OPT_INDENT_2))


def read(
    folder: str | Path, module: str | Sequence[str] | None, layers: Sequence[Mapping[str, Any]] | None = None
) -> Adapter:
    """The adapter of one module, by default of the only one; of several, or with `layers`, as one model's layers.

    Args:
        layers: of each, what the folder does not know: its base or sizes, and the activation behind it.

    Raises:
        Validation, BadSafetensors: for an adapter that no model can be.
    """
    file, config = Path(folder, TENSORS).read_bytes(), orjson.loads(Path(folder, CONFIG).read_bytes())
    if layers is None and (module is None or isinstance(module, str)):
        name, tensors = peft.only(file, module)
        return Adapter(peft_settings.settings(config, name), tensors)
    modules = [module] if isinstance(module, str) else module
    names, tensors = peft.chain(file, modules, None if layers is None else len(layers))
    layers = layers or [{} for _ in names]
    asked = [peft_settings.settings(config, name) for name in names]
    own = [{name: each[name] for name in OF_LAYERS} for each in asked]
    common = {name: value for name, value in asked[0].items() if name not in OF_LAYERS}
    return Adapter({**common, "layers": [{**one, **layer} for one, layer in zip(own, layers, strict=True)]}, tensors)


def replace(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole, or as it was before."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
