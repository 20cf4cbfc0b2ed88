"""`lora import`: the folder of a PEFT adapter becomes a model of a running service."""

import re
import sys
from pathlib import Path

from service.client import Client, Problem
from service.codecs import layer
from service.errors import ServiceError
from service.ids import BASE_ID

USAGE, NOT_FOUND, CONFLICT, UNAVAILABLE = 2, 3, 4, 5
STATUSES = {404: NOT_FOUND, 409: CONFLICT, 503: UNAVAILABLE}


def import_adapter(folder: Path, base: str, module: str | None, name: str | None, url: str) -> int:
    """Print the model that an adapter has become; the exit status.

    Args:
        base: the id of the base that the adapter is for, or a file of safetensors with its weight and bias.
        module: which one to take, where the folder has several.
    """
    try:
        with Client(url) as client:
            model = client.import_peft(folder, _base_id(client, base), module, name=name)
    except ConnectionError as error:
        return _refused(str(error), UNAVAILABLE)
    except Problem as problem:
        return _refused(str(problem), STATUSES.get(problem.status, USAGE))
    except (ServiceError, OSError, ValueError) as error:  # of the folder, or of the base's file
        return _refused(error.detail if isinstance(error, ServiceError) else str(error), USAGE)
    print(model.model_dump_json(indent=2))
    return 0


def _base_id(client: Client, base: str) -> str:
    if re.fullmatch(BASE_ID, base):
        return base
    return client.upload_base(*layer.loaded(Path(base).read_bytes())).id


def _refused(why: str, status: int) -> int:
    print(f"lora: {why}", file=sys.stderr)
    return status
