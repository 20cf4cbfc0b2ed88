"""The commands and their options. What a command needs is imported when it runs, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

from service import __version__

app = typer.Typer(
    name="lora",
    help="LoRA as a service: create adapters on linear layers, train them and run them over HTTP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lora-service {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """LoRA as a service."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (LORA_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one (LORA_PORT).")] = None,
) -> None:
    """Run the service until it is told to stop (Ctrl-C or SIGTERM)."""
    from service.cli.serve import serve as run

    raise typer.Exit(run(host, port))


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running at the end.")] = False,
) -> None:
    """Do the main job once: create, train, watch the losses, run forwards, over real HTTP."""
    from service.cli.demo import demo as run

    raise typer.Exit(run(keep=keep))


@app.command()
def backup(file: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Write all that the database holds to a file, while the service runs or not (LORA_DATABASE_URL)."""
    from service.cli.backup import backup as run

    raise typer.Exit(run(file))


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="What `lora backup` wrote.")]) -> None:
    """Fill an empty database from a backup; it may be one of another kind (LORA_DATABASE_URL)."""
    from service.cli.backup import restore as run

    raise typer.Exit(run(file))


@app.command("import")
def import_adapter(
    folder: Annotated[Path, typer.Argument(help="What PEFT's `save_pretrained` wrote.")],
    base: Annotated[str, typer.Option(help="The id of the base it is for, or a safetensors file of weight and bias.")],
    module: Annotated[str | None, typer.Option(help="Which module's adapter, where there are several.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    url: Annotated[str, typer.Option(help="Where the service is.")] = "http://127.0.0.1:8000",
) -> None:
    """Make a model of an adapter that PEFT saved."""
    from service.cli.importing import import_adapter as run

    raise typer.Exit(run(folder, base, module, name, url))
