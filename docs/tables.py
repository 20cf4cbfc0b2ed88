"""The problems, settings and limits of the service as pages, each read where the service itself has it."""

from collections.abc import Iterable

from service.api.problems import status_of
from service.api.routes.limits import FIXED
from service.errors import ServiceError, kinds
from service.settings import PREFIX, Settings

# Defaults that depend on the machine or on other settings.
COMPUTED = {
    "workers": "cores − 1, at most 4",
    "layer_mib": "1024; SQLite 900, PostgreSQL 500",
    "max_models": "10000; with a database 1000000",
    "weights_cache_mib": "a quarter of LORA_MEMORY_MIB",
}


def pages() -> dict[str, str]:
    """Text of each page by its name."""
    return {
        "reference/problems.md": _problems(),
        "reference/settings.md": _settings(),
        "reference/limits.md": _limits(),
    }


def _problems() -> str:
    sections = [_problem(kind) for kind in sorted(kinds(), key=lambda kind: (status_of(kind), kind.slug()))]
    intro = (
        "Every error is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). The last part "
        "of its `type` is one of these words, which never changes its meaning. `retryable` says whether the same "
        "request may succeed later. The service serves the same texts at `/problems/{slug}`."
    )
    return "\n".join(["# Problems\n", f"{intro}\n", *sections])


def _problem(kind: type[ServiceError]) -> str:
    _, _, advice = (kind.__doc__ or "").partition("\n")
    facts = f"Status {status_of(kind)}{', retryable' if kind.retryable else ''}. {kind.title()}."
    return f"## {kind.slug()} {{#{kind.slug()}}}\n\n{facts}\n\n{' '.join(advice.split())}\n"


def _settings() -> str:
    rows = [
        [
            f"`{PREFIX}{name.upper()}`",
            _default(name),
            str(field.json_schema_extra["unit"]) if isinstance(field.json_schema_extra, dict) else "",
            str(field.description),
        ]
        for name, field in Settings.model_fields.items()
    ]
    intro = (
        "Environment variables, read once at the start. An unknown `LORA_…` stops the start and is named. Those with a "
        "unit are limits, which `GET /limits` shows as they are in force."
    )
    return _page("Settings", intro, ["variable", "default", "unit", "what it sets"], rows)


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    return COMPUTED.get(name, "none" if default is None else f"`{default}`")


def _limits() -> str:
    rows = [[f"`{name}`", f"{value:,}", unit, text] for name, (value, unit, text) in FIXED.items()]
    intro = (
        "These are fixed. Those that a [setting](settings.md) moves stand there. `GET /limits` lists both, with the "
        "values in force. What is beyond a limit is refused before anything is allocated."
    )
    return _page("Fixed limits", intro, ["limit", "at most", "unit", "of what"], rows)


def _page(title: str, intro: str, head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"# {title}\n", f"{intro}\n", *(f"| {' | '.join(line)} |" for line in lines), ""])
