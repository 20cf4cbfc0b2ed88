"""Everything that can be set from outside, as `LORA_*`: read once, checked, and then fixed."""

import os
import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.logs import Level

PREFIX = "LORA_"
# What the commands that call a service read: where it is, and the key that they send. A service ignores both.
OF_COMMANDS = frozenset({"LORA_URL", "LORA_API_KEY"})
# What a database takes in one value: SQLite has 10⁹ bytes, PostgreSQL 2³⁰ for the text of two digits a byte.
STORED_MIB = {"sqlite": 900, "postgresql": 500}
MIN_KEY = 16  # characters; as many random digits in hex are 64 bits
READS = ":read"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.\[\]:_-]+")  # as browsers write it
KUBERNETES = (
    "in a pod: Kubernetes injects names like LORA_PORT and LORA_SERVICE_HOST for a Service called lora; "
    "set enableServiceLinks: false, or call the Service something else"
)


class SettingsError(Exception):
    """A setting stops the start; the text is one line for whoever started it."""


def usable_cores() -> int:
    """Cores this process may use: by affinity, and by the CPU quota of its cgroup where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return cores


def default_workers() -> int:
    """One core is left to the server, and more than four workers are for those who ask for them."""
    return max(1, min(4, usable_cores() - 1))


def _database(known: dict[str, Any]) -> str:
    """Which database the settings that are known so far name; none is the empty text."""
    url: SecretStr | None = known.get("database_url")
    return "" if url is None else url.get_secret_value().partition(":")[0].partition("+")[0]


def _setting(default: Any, description: str, unit: str | None = None, **bounds: Any) -> Any:
    extra: Any = {"unit": unit} if unit else None
    if callable(default):
        return Field(default_factory=default, description=description, json_schema_extra=extra, **bounds)
    return Field(default, description=description, json_schema_extra=extra, **bounds)


class Settings(BaseSettings):
    """The service's settings. Those with a unit are limits, which `/limits` publishes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = _setting("127.0.0.1", "address to listen on", min_length=1)
    port: int = _setting(8000, "port to listen on; 0 takes a free one", ge=0, le=65_535)
    database_url: SecretStr | None = _setting(
        None, "sqlite:///FILE or postgresql+psycopg://…, where all that is acknowledged is kept; none: in memory alone"
    )
    api_keys: SecretStr | None = _setting(
        None, "keys that callers must send, separated by commas; KEY:read may only read and run models; none: no key"
    )
    processes: int = _setting(1, "processes that serve, which share their models in a PostgreSQL", ge=1, le=256)
    insecure: bool = _setting(False, "listen on other addresses than this machine's own though there are no keys")
    allowed_hosts: str = _setting(
        "",
        "names that the service goes by beside LORA_HOST, IP addresses and names without a dot; *.example.org for any "
        "below that, * for any name",
    )
    allowed_origins: str = _setting(
        "", "origins of pages from elsewhere that may call it from a browser, such as https://example.org"
    )
    log_level: Level = _setting("warning", "which lines are logged: debug, info (each request), warning, error")
    device: Literal["auto", "cpu", "cuda"] = _setting("auto", "where tensors live; auto is cuda where there is one")
    runner: Literal["local", "ray"] = _setting("local", "what trains: processes of this machine, or a Ray cluster")
    ray_address: str = _setting(
        "auto", "the cluster: HOST:6379, ray://HOST:10001 from outside of it; auto is this machine's", min_length=1
    )
    worker_gpus: float = _setting(0.0, "GPUs that Ray is asked for by each worker, or a part of one", ge=0, le=64)
    workers: int = _setting(default_workers, "processes that train", unit="processes", ge=1, le=256)
    worker_threads: int = _setting(1, "torch threads of each training process", unit="threads", ge=1, le=1_024)
    grace_seconds: int = _setting(20, "time for requests under way at shutdown", unit="seconds", ge=1, le=3_600)
    drain_seconds: float = _setting(
        0.0,
        "after SIGTERM, time in which all is served as ever while /readyz says 503 to load balancers",
        unit="seconds",
        ge=0,
        le=3_600,
    )
    memory_mib: int = _setting(4_096, "all tensors held: models, bases, rows of jobs", unit="MiB", ge=1)
    layer_mib: int = _setting(
        lambda known: STORED_MIB.get(_database(known), 1_024), "tensors of one model and its base", unit="MiB", ge=1
    )
    train_mib: int = _setting(1_024, "data and working memory of one job", unit="MiB", ge=1)
    moments_mib: int = _setting(256, "second moments of one data set", unit="MiB", ge=1)
    together_max: int = _setting(256, "jobs trained in one stacked step", unit="jobs", ge=1, le=65_536)
    states_mib: int = _setting(64, "states of ended jobs that others may continue from", unit="MiB", ge=1)
    max_models: int = _setting(lambda known: 1_000_000 if _database(known) else 10_000, "models", unit="models", ge=1)
    max_datasets: int = _setting(1_000, "data sets", unit="data sets", ge=1)
    queue_max: int = _setting(1_024, "jobs that wait for a worker", unit="jobs", ge=1)
    keep_jobs: int = _setting(10_000, "jobs remembered after their end; the oldest go first", unit="jobs", ge=1)
    keep_versions: int = _setting(
        5, "earlier versions of a model kept beside the current one; the best is kept too", unit="versions", ge=0
    )
    key_requests: int = _setting(128, "requests that one API key may have under way", unit="requests", ge=1)
    key_queue_max: int = _setting(
        lambda known: max(1, known.get("queue_max", 1) // 2), "jobs of one API key that wait", unit="jobs", ge=1
    )
    head_seconds: float = _setting(10.0, "time within which the head of a request must have come", unit="seconds", ge=1)
    body_seconds: float = _setting(
        60.0, "time within which a body must have come, and one more for each 64 KiB of it", unit="seconds", ge=1
    )
    stall_seconds: float = _setting(
        30.0, "time for which a client may take nothing of its answer", unit="seconds", ge=1
    )
    json_body_mib: int = _setting(16, "body of a JSON request", unit="MiB", ge=1, le=1_024)
    binary_body_mib: int = _setting(64, "binary body, and outputs of a forward", unit="MiB", ge=1, le=4_096)
    bodies_mib: int = _setting(
        lambda known: max(256, known.get("binary_body_mib", 0)), "bodies of all requests under way", unit="MiB", ge=1
    )
    weights_cache_mib: int = _setting(
        lambda known: max(1, known.get("memory_mib", 0) // 4),
        "weights in memory, where the database has all",
        unit="MiB",
        ge=1,
    )
    checkpoint_seconds: float = _setting(
        5.0, "after so long a job that trains is stored as it stands, where there is a database", unit="seconds", ge=0
    )
    lease_seconds: float = _setting(
        10.0,
        "where several servers share a PostgreSQL, after so long a job is taken over from one that is silent",
        unit="seconds",
        ge=1,
    )
    merged_cache_mib: int = _setting(64, "merged weights of the layers that run most", unit="MiB", ge=0)
    batch_max_rows: int = _setting(1_024, "rows of the forwards that share one pass", unit="rows", ge=1)
    batch_wait_ms: float = _setting(
        1.0, "time that a forward may wait for others to share its pass with", unit="ms", ge=0, le=1_000
    )
    forward_wait_ms: int = _setting(5_000, "time within which a forward must have begun", unit="ms", ge=1)
    sse_streams: int = _setting(256, "event streams open at a time", unit="streams", ge=1)

    @field_validator("api_keys")
    @classmethod
    def _are_long(cls, api_keys: SecretStr | None) -> SecretStr | None:
        if api_keys is not None and not api_keys.get_secret_value():
            return None  # as a Compose file hands on a variable that nobody has set
        keys = [key for key, _ in key_texts(api_keys)]
        if api_keys is not None and not keys:
            raise ValueError("it holds no key; unset it where none is asked for")
        if any(len(key) < MIN_KEY or not key.isascii() or not key.isprintable() for key in keys):
            raise ValueError(
                f"a key has at least {MIN_KEY} characters of ASCII, such as what `openssl rand -hex 32` prints"
            )
        return api_keys

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, allowed_origins: str) -> str:
        for given in listed(allowed_origins):
            if not ORIGIN.fullmatch(given):
                raise ValueError(
                    f"{given[:60]!r} is no origin; one is as browsers write it, in small letters and without a path, "
                    "such as https://example.org or http://localhost:3000, and there is no * for all"
                )
        return allowed_origins

    @field_validator("runner")
    @classmethod
    def _is_installed(cls, runner: str) -> str:
        if runner == "ray" and find_spec("ray") is None:
            raise ValueError("Ray is not installed; `pip install '.[ray]'` in the folder of the service brings it")
        return runner

    @field_validator("processes")
    @classmethod
    def _share_a_database(cls, processes: int, given: ValidationInfo) -> int:
        if processes > 1 and _database(given.data) != "postgresql":
            raise ValueError(
                "processes share their models in a PostgreSQL, so LORA_DATABASE_URL must be postgresql+psycopg://…"
            )
        return processes

    @field_validator("bodies_mib")
    @classmethod
    def _holds_one(cls, bodies_mib: int, given: ValidationInfo) -> int:
        largest = max(given.data.get("binary_body_mib", 0), given.data.get("json_body_mib", 0))
        if bodies_mib < largest:
            raise ValueError(f"the largest body, of {largest} MiB, would never have room")
        return bodies_mib

    @field_validator("weights_cache_mib")
    @classmethod
    def _leaves_room(cls, weights_cache_mib: int, given: ValidationInfo) -> int:
        memory_mib = given.data.get("memory_mib", weights_cache_mib + 1)
        if _database(given.data) and weights_cache_mib >= memory_mib:
            raise ValueError(f"it must leave room in LORA_MEMORY_MIB, which is {memory_mib}")
        return weights_cache_mib

    @field_validator("layer_mib")
    @classmethod
    def _can_be_stored(cls, layer_mib: int, given: ValidationInfo) -> int:
        most = STORED_MIB.get(_database(given.data), layer_mib)
        if layer_mib > most:
            raise ValueError(f"the database takes at most {most}")
        return layer_mib


SECRET = {"api_keys", "database_url"}  # which no error shows


def listed(text: str) -> list[str]:
    """What a setting lists, separated by commas or spaces."""
    return text.replace(",", " ").split()


def key_texts(api_keys: SecretStr | None) -> list[tuple[str, bool]]:
    """The keys that the setting lists, and of each whether it may only read."""
    given = [] if api_keys is None else listed(api_keys.get_secret_value())
    return [(text.removesuffix(READS), text.endswith(READS)) for text in given]


def load(**given: Any) -> Settings:
    """The settings of this process; `given` ones (None: not given) win over the environment.

    Raises:
        SettingsError: for a name that is no setting, or a value that does not fit.
    """
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | OF_COMMANDS
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        meant = get_close_matches(unknown[0].lower().removeprefix(PREFIX.lower()), Settings.model_fields, n=1)
        hint = f"; did you mean {PREFIX}{meant[0].upper()}?" if meant else ""
        raise SettingsError(f"{unknown[0]} is not a setting of this service{hint} ({KUBERNETES})")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{first['loc'][0]}".upper()
        hint = f" ({KUBERNETES})" if str(first["input"]).startswith("tcp://") else ""
        shown = "wrong" if first["loc"][0] in SECRET else repr(str(first["input"])[:60])
        raise SettingsError(f"{name} is {shown}: {first['msg'].removeprefix('Value error, ')}{hint}") from None
