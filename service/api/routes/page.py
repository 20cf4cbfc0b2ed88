"""The page at `/`, and the files that it is made of."""

from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import etags
from service.errors import NotFound

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".md": "text/plain; charset=utf-8",
}
HEADERS = {
    # No script and no style within the page, nothing from elsewhere, and the page in no frame.
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # ask each time, by the tag
}


@dataclass(frozen=True)
class File:
    """A file of the page: its bytes, their type, and the tag by which a browser knows them again."""

    content: bytes
    kind: str
    tag: str


def _read(path: Path) -> File:
    """A file with the tag of its content."""
    content = path.read_bytes()
    return File(content, TYPES[path.suffix], etags.of_bytes(content))


# All there is to be asked for, so no address can lead out of the folder.
FILES = {path.relative_to(FOLDER).as_posix(): _read(path) for path in FOLDER.rglob("*") if path.suffix in TYPES}


@router.get("/")
async def front(request: Request) -> Response:
    """The page."""
    return _answer(request, "index.html")


@router.get("/favicon.ico")
async def icon(request: Request) -> Response:
    """What browsers ask for by themselves."""
    return _answer(request, "favicon.svg")


@router.get("/static/{name:path}")
async def static(name: str, request: Request) -> Response:
    """A file that the page is made of."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    file = FILES.get(name)
    if file is None:
        raise NotFound("there is no such file; / is the page that these belong to")
    return etags.unless_known(
        request, file.tag, lambda tag: Response(file.content, media_type=file.kind, headers={**HEADERS, **tag})
    )
