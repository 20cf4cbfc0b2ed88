"""What every command that calls a service has in common: where it is, with which key, and for whom to print."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from service.cli.statuses import Refused

if TYPE_CHECKING:
    from service.client import Client

URL = "http://127.0.0.1:8000"
PANEL = "The service"
TEXT_SECONDS = 10.0
P = ParamSpec("P")
Returned = int | None


@dataclass(frozen=True)
class Place:
    """A running service, and how to tell its answers."""

    url: str
    api_key: str | None
    as_json: bool

    def client(self) -> "Client":
        """A client of the service, to be closed.

        Raises:
            Refused: for a key that cannot be sent.
        """
        from service.client import Client

        try:
            return Client(self.url, api_key=self.api_key)
        except ValueError as error:
            raise Refused(str(error)) from None

    def text(self, path: str, seconds: float = TEXT_SECONDS) -> str:
        """What stands at a path of the service that is for other programs, such as `/metrics`.

        Raises:
            Unreachable: where it does not answer, or not so.
            Refused: for a key that cannot be sent.
        """
        import httpx

        from service.client import Unreachable
        from service.client.calls import bearer

        try:
            answer = httpx.get(self.url.rstrip("/") + path, headers=bearer(self.api_key), timeout=seconds)
            return answer.raise_for_status().text
        except httpx.HTTPStatusError as error:
            raise Unreachable(f"{self.url} answers, but {path} with {error.response.status_code}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"{self.url} does not answer: {str(error) or type(error).__name__}") from None
        except ValueError as error:
            raise Refused(str(error)) from None


def calling(command: Callable[Concatenate[Place, P], Returned]) -> Callable[..., Returned]:
    """The command with `--url`, `--api-key` and `--json`, of which its first argument is made."""
    own = list(inspect.signature(command).parameters.values())[1:]
    shared = list(inspect.signature(_shared).parameters.values())

    @wraps(command)
    def called(*, url: str, api_key: str | None, as_json: bool, **options: Any) -> Returned:
        return command(Place(url, api_key, as_json), **options)  # type: ignore[call-arg]

    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *shared)]
    )
    called.__annotations__ = {each.name: each.annotation for each in (*own, *shared)}
    return called


def _shared(
    url: Annotated[
        str, typer.Option("--url", envvar="LORA_URL", metavar="URL", help="Where it is.", rich_help_panel=PANEL)
    ] = URL,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", envvar="LORA_API_KEY", metavar="KEY", help="Sent as a bearer token.", rich_help_panel=PANEL
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.", rich_help_panel=PANEL)
    ] = False,
) -> None:
    """The options of all that call a service."""
