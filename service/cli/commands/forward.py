"""`lora forward`."""

from typing import Annotated

from typer import Argument, Option

from service.cli import options as o
from service.cli.calling import Place, calling


@calling
def forward(
    at: Place,
    model: o.ModelId,
    file: Annotated[str, Argument(metavar="FILE|-", help="Inputs (…, in): npy, npz, csv, safetensors or json.")],
    output: Annotated[
        str | None, Option("--output", "-o", metavar="FILE|-", help="Write npy, csv, safetensors or json.")
    ] = None,
    form: o.Form = None,
    to: Annotated[
        str | None, Option(metavar="FORMAT", help="The format of the output, where no name of a file tells it.")
    ] = None,
    version: o.Version = None,
) -> None:
    """Run a model on the rows of a file.

    Without --output and --to the outputs are printed: as a table on a terminal, as lines with tabs elsewhere.

    Examples:

    lora forward digits x.csv

    lora forward mdl_01M8 x.npy -o scores.npy

    lora forward mdl_01M8 x.npy --to csv

    cat x.npy | lora forward mdl_01M8 - -o - | lora forward mdl_01M9 -
    """
    from service.cli import outputs
    from service.cli.kinds import MODEL, found
    from service.cli.reading import inputs
    from service.cli.writing import write, writer

    if output is None and to is not None:
        output = "-"
    encode = None if output is None else writer(output, to)
    with at.client() as client:
        model_id = found(client, model, MODEL)
        result = client.forward(model_id, inputs(file, form), version)
    if output is None or encode is None:
        outputs.show(result, model_id, as_json=at.as_json)
        return
    write(output, encode(result))
    if output != "-":
        outputs.told(output, result, model_id, as_json=at.as_json)
