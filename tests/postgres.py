"""A PostgreSQL of the tests' own: Debian's programs, a folder of its own, a free port, ended by its own handle."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.programs import needs
from tests.running import until

USER = "lora"
NOBODY = "nobody"  # PostgreSQL does not run as root


def programs() -> Path:
    """Where initdb and postgres are; skips where they are not."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    needs("initdb")
    found = shutil.which("initdb")
    assert found is not None, "needs has found it"
    return Path(found).parent


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of an empty database, as `LORA_DATABASE_URL` takes it."""
    bin_dir, data = programs(), folder / "data"
    user = NOBODY if os.getuid() == 0 else None
    if user is not None:
        for parent in (folder, *folder.parents[:3]):
            parent.chmod(parent.stat().st_mode | 0o011)
        shutil.chown(folder, user)
    locale = ("--locale=C.UTF-8", "--encoding=UTF8", "--auth=trust", f"--username={USER}", "--no-sync")
    subprocess.run([bin_dir / "initdb", "-D", data, *locale], check=True, capture_output=True, user=user)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
    command = [
        bin_dir / "postgres",
        "-D",
        data,
        *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user)
    try:
        until(lambda: _answers(port))
        yield f"postgresql+psycopg://{USER}@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        psycopg.connect(host="127.0.0.1", port=port, user=USER, dbname="postgres", connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
