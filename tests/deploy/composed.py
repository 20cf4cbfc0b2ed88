"""The Compose file as Compose reads it: with the variables of whoever starts it."""

import re
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(\w+):-(.*?)\}")


def services() -> dict[str, Any]:
    """The services, with what they take from one another, and variables as they stand there."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


def environment(service: str, **variables: str) -> dict[str, str]:
    """What a container is told where whoever starts it has these variables; an empty one is as good as none."""
    told = services()[service]["environment"]
    return {
        name: VARIABLE.sub(lambda found: variables.get(found[1]) or found[2], str(value))
        for name, value in told.items()
    }
