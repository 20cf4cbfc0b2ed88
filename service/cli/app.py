"""The `lora` command: its commands by what they are for, and how each is called."""

from collections.abc import Callable
from typing import Annotated

import typer

from service import __version__
from service.cli.commands import backup, exchange, lists, rm, serve
from service.cli.commands.create import create
from service.cli.commands.doctor import doctor
from service.cli.commands.forward import forward
from service.cli.commands.gather import gather
from service.cli.commands.openapi import openapi
from service.cli.commands.profile import rank_profile
from service.cli.commands.rename import rename
from service.cli.commands.show import show
from service.cli.commands.sweep import sweep
from service.cli.commands.top import top
from service.cli.commands.train import train
from service.cli.commands.upload import upload
from service.cli.commands.versions import rollback, versions
from service.cli.group import Commands

EPILOG = (
    "Every command has a --help. It ends with status 0 when all is done, 1 when a job failed, 2 for wrong words or "
    "values, 3 for what is not there, 4 for a conflict, 5 when the service is not available, 130 when "
    "interrupted."
)

COMMANDS: dict[str, dict[str, Callable[..., int | None]]] = {
    "Models": {
        "create": create,
        "forward": forward,
        "models": lists.models,
        "bases": lists.bases,
        "show": show,
        "rename": rename,
        "versions": versions,
        "rollback": rollback,
        "rm": rm.rm,
        "export": exchange.export,
        "import": exchange.import_adapter,
    },
    "Training": {
        "train": train,
        "jobs": lists.jobs,
        "cancel": rm.cancel,
        "datasets": lists.datasets,
        "upload": upload,
        "gather": gather,
        "rank-profile": rank_profile,
        "sweep": sweep,
        "sweeps": lists.sweeps,
    },
    "The service": {
        "serve": serve.serve,
        "demo": serve.demo,
        "top": top,
        "doctor": doctor,
        "openapi": openapi,
        "backup": backup.backup,
        "restore": backup.restore,
    },
}

app = typer.Typer(
    name="lora",
    cls=Commands,
    help="LoRA as a service: create adapters on linear layers, train them and run them over HTTP.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
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


for _panel, _commands in COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_command)
