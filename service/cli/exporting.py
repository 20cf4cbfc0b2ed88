"""Models as files: the folder of an adapter for PEFT, or one file of safetensors."""

from collections.abc import Callable

from service.cli.statuses import Refused
from service.cli.writing import write
from service.client import Client
from service.codecs import safetensors
from service.codecs.safetensors import Tensors

# What is asked for a model, and perhaps for one of its versions.
Asked = Callable[[str, int | None], Tensors]


def tensors(asked: Asked, model_id: str, version: int | None, path: str) -> None:
    """Write the tensors that are asked for to a file, or to the standard output."""
    write(path, safetensors.dump(asked(model_id, version)))


def peft(client: Client, model_id: str, version: int | None, folder: str, module: str | None) -> None:
    """Write the folder of an adapter on a module.

    Raises:
        Refused: for what is no folder, or an earlier version, which PEFT's two files cannot be of.
    """
    if version is not None:
        raise Refused("a folder for PEFT is of the current version; --weights and --merged take an earlier one")
    if folder == "-" or folder.endswith(".safetensors"):
        raise Refused(f"{folder} is no folder; with --merged or --weights it is a file")
    client.export_peft(model_id, folder, module)
