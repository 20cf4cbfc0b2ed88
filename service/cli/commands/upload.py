"""`lora upload`."""

from typing import Annotated

from typer import Argument, Option

from service.cli import options as o
from service.cli.calling import Place, calling


@calling
def upload(
    at: Place,
    files: Annotated[list[str], Argument(metavar="FILE|-...", help="npy, npz, csv, safetensors or JSON.")],
    target: o.Target = None,
    form: o.Form = None,
    classes: Annotated[
        bool, Option("--classes", help="The targets are classes, for cross_entropy.", rich_help_panel=o.DATA_PANEL)
    ] = False,
    moments: Annotated[
        bool,
        Option("--moments", help="Keep no rows but their moments, for full-batch mse.", rich_help_panel=o.DATA_PANEL),
    ] = False,
    quiet: o.Quiet = False,
) -> None:
    """Make a data set of the rows of files, which any number of trainings may name.

    Examples:

    lora upload rows.csv --target price

    lora train digits --data $(lora upload first.npz second.npz --classes -q) --loss cross_entropy
    """
    from service.cli import printing
    from service.cli.reading import rows
    from service.cli.rows import fitting, uploaded

    loss = "cross_entropy" if classes else "mse"
    given = (fitting(rows(file, form, target), loss) for file in files)
    with at.client() as client:
        dataset = uploaded(client, given, keep_rows=not moments)
    printing.record(dataset, as_json=at.as_json, id_only=quiet)
