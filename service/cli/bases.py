"""The base that a model is to stand on, as `--base` names it."""

from pathlib import Path

from service.cli.kinds import BASE, found
from service.client import Client
from service.codecs import layer


def base_id(client: Client, named: str | None) -> str | None:
    """The id of a base: the one given, or that of the layer in a file of safetensors, which is uploaded.

    Raises:
        NotFound, BadSafetensors, OSError
    """
    if named is None:
        return None
    if named.startswith("base_") and not Path(named).exists():
        return found(client, named, BASE)
    return client.upload_base(*layer.loaded(Path(named).read_bytes())).id
