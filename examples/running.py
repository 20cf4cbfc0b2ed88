"""An example from its start to its end, on a service that runs already or on one of its own."""

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext

from rich.console import Console

from service.cli.started import NotStarted, service
from service.client import Client, Problem


def run(example: Callable[[Client, Console], None], about: str) -> int:
    """Run the example; the exit status."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--url", help="of a service that runs; by default one is started, and stopped again")
    given = parser.parse_args().url
    try:
        with nullcontext((given, 0)) if given else service(keep=False) as (url, _), Client(url) as client:
            example(client, Console(highlight=False))
    except NotStarted as error:  # and the service has said why
        return error.status
    except (Problem, ConnectionError, RuntimeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 5
    return 0
