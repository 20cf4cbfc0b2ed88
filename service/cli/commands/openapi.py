"""`lora openapi`."""

from typing import Annotated

from typer import Option


def openapi(
    output: Annotated[str, Option("--output", "-o", metavar="FILE|-", help="Where to write it.")] = "-",
    as_json: Annotated[bool, Option("--json", help="It is JSON in any case.")] = False,
) -> None:
    """Print the OpenAPI document of this version; no service is started for it.

    Example:

    lora openapi -o openapi.json
    """
    from service.api.openapi import text
    from service.cli.writing import write

    write(output, text().encode())
