"""Ask a running service all that its OpenAPI page allows and much that it forbids, and hold it to the page.

`python -m tests.trust.schema --examples N [--seed SEED]` does so with up to N cases of each operation and phase; the
tests with few.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.running import as_process

HERE = Path(__file__).parent
KEY = "k" * 32
# Little enough that jobs and uploads stay small, and that some requests find the service full.
BOUNDS = {
    "LORA_API_KEYS": KEY,
    "LORA_WORKERS": "1",
    "LORA_MEMORY_MIB": "256",
    "LORA_LAYER_MIB": "4",
    "LORA_TRAIN_MIB": "16",
    "LORA_JSON_BODY_MIB": "1",
    "LORA_BINARY_BODY_MIB": "1",
    "LORA_KEEP_JOBS": "1000",
}
SCHEMATHESIS = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"


@contextmanager
def bounded() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service within these bounds, as a process, and its URL; it must be alive at the end."""
    with as_process(**BOUNDS) as (process, url):
        yield process, url
        assert process.poll() is None, f"the service ended with status {process.returncode}"


def ask(url: str, *options: str, out: IO[str] | None = None, seconds: float | None = None) -> int:
    """Run schemathesis on a service; gives its exit status."""
    config = ["--no-color", "--config-file", str(HERE / "schemathesis.toml")]
    command = [sys.executable, "-c", SCHEMATHESIS, *config, "run", f"{url}/openapi.json", *options]
    environment = {**os.environ, "SCHEMA_KEY": KEY, "PYTHONPATH": str(HERE.parents[1])}
    with tempfile.TemporaryDirectory() as folder:  # where it leaves files
        asked = subprocess.run(
            command, stdout=out, stderr=subprocess.STDOUT, timeout=seconds, cwd=folder, env=environment
        )
    return asked.returncode


def main() -> None:
    """All phases: the examples, the edges of each schema, random requests, and chains of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.trust.schema", description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help="cases of each operation in each phase")
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    seed = [] if given.seed is None else ["--seed", str(given.seed)]
    with bounded() as (_, url):
        status = ask(url, "--max-examples", str(given.examples), *seed)
    sys.exit(status)


if __name__ == "__main__":
    main()
