"""Lists in pages: a cursor says after which item of which list, under which filters, the next page begins."""

import base64
import re
from collections.abc import Sequence
from typing import Annotated, Protocol, TypeVar

import orjson
from fastapi import Query
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from service.errors import BadCursor
from service.ids import ANY_ID, matches
from service.schemas.choices import Order

MAX_PAGE = 200


def whole(text: str) -> str:
    """The text, unless it is what Python takes for an integer and nobody else does: 7.0, +7, 1_0."""
    if not re.fullmatch("-?[0-9]+", text):
        raise PydanticCustomError("int_type", "not an integer")
    return text


LimitQuery = Annotated[int, Query(ge=1, le=MAX_PAGE, description="how many at most"), BeforeValidator(whole)]
CursorQuery = Annotated[str | None, Query(max_length=512, description="next_cursor of the page before")]
OrderQuery = Annotated[Order, Query(description="asc: in the order of their ids; desc: the other way round")]


class Item(Protocol):
    """What has an id that sorts by creation."""

    @property
    def id(self) -> str: ...


I = TypeVar("I", bound=Item)  # noqa: E741


def page(
    items: Sequence[I], of: Sequence[str | None], limit: int, cursor: str | None, order: Order = "asc"
) -> tuple[list[I], str | None]:
    """The items after the cursor, and the cursor to those after them.

    Args:
        items: the whole list, sorted by id.
        of: what the list is: its name and its filters.
        order: which way it is read; a cursor holds for one of them.

    Raises:
        BadCursor: for a cursor that this list did not give.
    """
    of = [*of, order]
    after = None if cursor is None else _read(cursor, of)
    if order == "asc":
        rest = [item for item in items if after is None or item.id > after]
    else:
        rest = [item for item in reversed(items) if after is None or item.id < after]
    some = rest[:limit]
    return some, _write(some[-1].id, of) if len(rest) > limit else None


def _write(after: str, of: Sequence[str | None]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([after, *of])).decode()


def _read(cursor: str, of: Sequence[str | None]) -> str:
    try:
        after, *rest = orjson.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        if rest == list(of) and isinstance(after, str) and matches(ANY_ID, after):
            return after
    except (ValueError, TypeError):
        pass
    raise BadCursor("the cursor is not one that this list gave; start over without it")
