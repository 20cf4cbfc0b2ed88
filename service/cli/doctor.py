"""What a service needs where it runs, looked at piece by piece, and what to do about what is missing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from service import __version__
from service.cli import printing, prometheus
from service.cli.calling import Place
from service.cli.columns import amount
from service.cli.serve import must_be_free
from service.cli.statuses import Status
from service.client import Unreachable
from service.settings import Settings, SettingsError, load, usable_cores

Verdict = Literal["ok", "warn", "fail"]
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
MIB = 2**20
SECONDS = 3.0
TORCH_SECONDS = 120
# In a process of its own, since a torch that is broken may end the process that imports it.
TORCH = "import json, torch; print(json.dumps([torch.__version__, torch.get_num_threads(), torch.cuda.is_available()]))"
# Where `--install-completion` leaves its mark.
COMPLETIONS = {
    "bash": ".bash_completions/lora.sh",
    "zsh": ".zfunc/_lora",
    "fish": ".config/fish/completions/lora.fish",
}


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do where it is not well."""

    name: str
    verdict: Verdict
    says: str
    advice: str = ""


def examine(place: Place) -> int:
    """Print each check as it is done; the status to end with."""
    done = []
    for check in checks(place):
        done.append(check)
        if not place.as_json:
            _show(check)
    if place.as_json:
        printing.document([asdict(check) for check in done])
    return Status.UNAVAILABLE if any(check.verdict == "fail" for check in done) else Status.OK


def checks(place: Place) -> Iterator[Check]:
    """The checks, those of what is set only where the settings are right."""
    yield Check("version", "ok", f"lora-service {__version__}, Python {sys.version.split()[0]}")
    yield answering(place)
    try:
        settings = load()
    except SettingsError as error:
        yield Check("settings", "fail", str(error), "set it otherwise, or unset it")
    else:
        yield Check("settings", "ok", "every LORA_… is a setting, with a value that fits")
        yield port(settings)
        yield database(settings)
        yield torch(settings)
        yield memory(settings)
    yield completion(os.environ.get("SHELL", ""), Path.home())


def answering(place: Place) -> Check:
    """Whether a service answers, of this version."""
    try:
        reading = prometheus.read(place.text("/metrics", SECONDS), 0)
    except Unreachable as error:
        return Check("service", "warn", str(error), "`lora serve` starts one, --url says where another is")
    version = reading.label("lora_build_info", "version")
    if version is None:
        return Check("service", "fail", f"what answers at {place.url} is no lora-service", "say where it is with --url")
    if version != __version__:
        advice = f"bring both to one version; this command is {__version__}"
        return Check("service", "warn", f"{place.url} answers, as version {version}", advice)
    return Check("service", "ok", f"{place.url} answers, as version {version}")


def port(settings: Settings) -> Check:
    """Whether a service could listen where the settings say."""
    where = f"{settings.host}:{settings.port}"
    try:
        must_be_free(settings.host, settings.port)
    except SettingsError as error:
        return Check(
            "port", "warn", str(error), "no other service can start there: `lora serve --port 0` finds a free one"
        )
    return Check("port", "ok", f"{where} is free")


def database(settings: Settings) -> Check:
    """Whether what is acknowledged can be kept."""
    from service.models import reach
    from service.models.store import StoreRefused

    if settings.database_url is None:
        advice = "LORA_DATABASE_URL=sqlite:///lora.db keeps it"
        return Check("database", "warn", "none is named: all ends with the process", advice)
    try:
        return Check("database", "ok", reach.reached(settings.database_url.get_secret_value()))
    except StoreRefused as error:
        return Check("database", "fail", str(error), "make the folder writable, or name another in LORA_DATABASE_URL")


def torch(settings: Settings) -> Check:
    """Whether torch is there, and what it computes on."""
    try:
        ended = subprocess.run(  # nosec B603  # the program is a constant
            [sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Check("torch", "fail", f"torch is not imported after {TORCH_SECONDS} s", "see whether the disk is slow")
    if ended.returncode:
        why = (ended.stderr.strip().splitlines() or [f"it ended with status {ended.returncode}"])[-1]
        return Check("torch", "fail", f"torch cannot be imported: {why}", "pip install --force-reinstall torch")
    version, threads, cuda = json.loads(ended.stdout)
    cores = usable_cores()
    says = f"torch {version}, {cores} usable cores ({threads} threads by itself), {'cuda' if cuda else 'cpu'}"
    if settings.device == "cuda" and not cuda:
        return Check("torch", "fail", f"{says}; LORA_DEVICE is cuda", "set LORA_DEVICE to auto or cpu")
    if settings.workers > cores:
        return Check("torch", "warn", f"{says}; LORA_WORKERS is {settings.workers}", "more than cores do not help")
    return Check("torch", "ok", says)


def memory(settings: Settings) -> Check:
    """Whether the machine has what the settings allow."""
    wanted, there = settings.memory_mib * MIB, memory_bytes()
    says = f"{amount(there)} are there; LORA_MEMORY_MIB allows {amount(wanted)} of tensors"
    if wanted > there:
        return Check("memory", "warn", says, f"set LORA_MEMORY_MIB to {there // MIB // 2} or so")
    return Check("memory", "ok", says)


def memory_bytes() -> int:
    """The memory of the machine, or of the container where that is less."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(there, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return there


def completion(shell: str, home: Path) -> Check:
    """Whether the shell completes commands and ids."""
    name = Path(shell).name
    if name not in COMPLETIONS:
        return Check("completion", "ok", f"the shell is {name or 'unknown'}, which is completed by nobody here")
    if (home / COMPLETIONS[name]).exists():
        return Check("completion", "ok", f"{name} completes commands and ids")
    return Check("completion", "warn", f"{name} does not complete commands and ids yet", "`lora --install-completion`")


def _show(check: Check) -> None:
    if printing.for_a_reader():
        advice = f" [dim]→ {escape(check.advice)}[/]" if check.advice else ""
        style = STYLES[check.verdict]
        Console(highlight=False).print(
            f"[{style}]{check.verdict:4}[/] [bold]{check.name:10}[/] {escape(check.says)}{advice}", soft_wrap=True
        )
    else:
        print("\t".join((check.verdict, check.name, check.says, check.advice)))
