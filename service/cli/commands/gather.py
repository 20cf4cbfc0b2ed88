"""`lora gather`."""

from importlib.util import find_spec
from typing import Annotated

from typer import Argument, Option

from service.cli import options as o
from service.cli.calling import Place, calling


@calling
def gather(
    at: Place,
    source: Annotated[str, Argument(metavar="SOURCE", help="A file, a folder or an address that Ray Data reads.")],
    target: Annotated[list[str], Option(metavar="COLUMN", help="A column that is to be learnt, by name or number.")],
    given: Annotated[
        list[str] | None, Option("--input", metavar="COLUMN", help="A column to learn from; default: all others.")
    ] = None,
    weight: Annotated[str | None, Option(metavar="COLUMN", help="The column with the weight of each row.")] = None,
    form: Annotated[
        str | None, Option("--format", metavar="FORMAT", help="parquet, csv or npy; default: as the name ends.")
    ] = None,
    ray: Annotated[
        str | None, Option("--ray", metavar="ADDRESS", help="The Ray cluster; default: this machine's, or all of it.")
    ] = None,
    quiet: o.Quiet = False,
) -> None:
    """Make a data set of rows of any number, which are summed up where they lie: their moments alone are sent.

    Full-batch mse needs nothing else, and training costs the same whatever the number of rows.

    Examples:

    lora gather rows.parquet --target price

    lora gather s3://bucket/rows/ --format parquet --target price --input area --input rooms --ray auto
    """
    from service.cli import printing
    from service.cli.statuses import Refused

    if find_spec("ray") is None:
        raise Refused(
            "Ray reads the rows, and is not installed; `pip install '.[ray]'` in the folder of the service brings it"
        )
    from service.cluster import moments

    with at.client() as client:
        with moments.at(ray):
            sums = moments.gathered(moments.read(source, form), moments.Columns(target, given, weight))
        printing.record(client.upload_moments(sums), as_json=at.as_json, id_only=quiet)
