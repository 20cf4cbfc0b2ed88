"""The newest ids for the completion of the shell, asked of the service; where it is slow or silent there are none."""

from collections.abc import Callable, Iterator

import typer

from service.cli.calling import URL

SECONDS = 0.4
MOST = 200  # what one page has

Completion = list[tuple[str, str]]


def of(*collections: str) -> Callable[[typer.Context, str], Completion]:
    """Completes ids of these collections, such as `models`."""

    def complete(context: typer.Context, incomplete: str) -> Completion:
        return [
            each
            for collection in collections
            for each in _listed(context.params, collection)
            if each[0].startswith(incomplete)
        ]

    return complete


def _listed(options: dict[str, str], collection: str) -> Iterator[tuple[str, str]]:
    import httpx

    key = options.get("api_key")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        url = f"{(options.get('url') or URL).rstrip('/')}/{collection}"
        page = httpx.get(url, params={"limit": MOST, "order": "desc"}, headers=headers, timeout=SECONDS)
        for each in page.raise_for_status().json()["items"]:
            yield each["id"], str(each.get("name") or each.get("state") or "")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):  # nobody wants to read of it here
        return
