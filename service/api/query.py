"""The query of an address: a parameter that its route lacks is refused, as a field is that a body does not have."""

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from difflib import get_close_matches
from typing import Any

from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from service.api.faults import MAX_NAME
from service.bounds import cut
from service.errors import Fault, Validation, pointer


class StrictRoute(APIRoute):
    """A route that takes the query parameters it declares, each of them once."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = [parameter.alias for parameter in self.dependant.query_params]

        async def strict(request: Request) -> Response:
            if request.scope["query_string"]:
                must_be_known(QueryParams(request.scope["query_string"]), known)
            return await handle(request)

        return strict


def must_be_known(query: QueryParams, known: Sequence[str]) -> None:
    """Raise Validation for parameters other than those known, and for one that is given more than once."""
    times = Counter(name for name, _ in query.multi_items())
    faults = [
        Fault(
            pointer(name) if len(name) <= MAX_NAME else "",
            _unknown(name, known) if name not in known else _again(name, n),
        )
        for name, n in times.items()
        if name not in known or n > 1
    ]
    if faults:
        raise Validation(faults[0].detail, *faults)


def _unknown(name: str, known: Sequence[str]) -> str:
    meant = get_close_matches(name, known, n=1)
    hint = f"; did you mean {meant[0]}?" if meant else ";"
    there_are = f"{hint} the parameters are {', '.join(known)}" if known else ", which takes none"
    return f"{cut(name, MAX_NAME)} is not a query parameter of this address{there_are}"


def _again(name: str, times: int) -> str:
    return f"{name} is given {times} times in the address; it must be given once"
