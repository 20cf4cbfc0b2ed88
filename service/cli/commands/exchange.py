"""`lora export` and `lora import`: adapters to PEFT and from there, weights as safetensors."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from service.cli import options as o
from service.cli.calling import Place, calling


@calling
def export(
    at: Place,
    model: o.ModelId,
    to: Annotated[str, Argument(metavar="FOLDER|FILE|-", help="A folder for PEFT, or a safetensors file.")],
    merged: Annotated[bool, Option("--merged", help="The model as plain layers.")] = False,
    weights: Annotated[bool, Option("--weights", help="All its tensors: base, A, B and what else it has.")] = False,
    module: Annotated[str | None, Option(help="For PEFT: which module of a network it adapts.")] = None,
    version: o.Version = None,
) -> None:
    """Write a model as a folder that PEFT loads, or with --merged or --weights as one file of safetensors.

    Examples:

    lora export digits adapter/ --module layers.0.fc

    lora export digits merged.safetensors --merged
    """
    from service.cli import printing
    from service.cli.exporting import peft, tensors
    from service.cli.kinds import MODEL, found
    from service.cli.statuses import Refused

    if merged and weights:
        raise Refused("--merged and --weights are two different files; take one of them")
    if (merged or weights) and module is not None:
        raise Refused("--module is for PEFT; a file of --merged or --weights has no modules")
    with at.client() as client:
        model_id = found(client, model, MODEL)
        if merged or weights:
            tensors(client.merged if merged else client.weights, model_id, version, to)
        else:
            peft(client, model_id, version, to, module)
    if to != "-":
        printing.done(f"{to} has {model_id}", as_json=at.as_json, model_id=model_id, path=to)


@calling
def import_adapter(
    at: Place,
    folder: Annotated[Path, Argument(help="What PEFT's `save_pretrained` wrote.")],
    base: o.Base = None,
    module: Annotated[
        list[str] | None, Option(help="Which module's adapter, where there are several; or which ones, as layers.")
    ] = None,
    layers: o.Layers = None,
    name: o.Name = None,
    sets: o.Sets = None,
    quiet: o.Quiet = False,
) -> None:
    """Make a model of an adapter that PEFT saved.

    Examples:

    lora import adapter/ --base layer.safetensors

    lora import adapter/ --base base_2d5c --module layers.0.fc --name tuned

    lora import adapter/ --module 0 --module 2 --layers layers.json
    """
    from service.cli import bases, printing
    from service.cli.settings_given import fields, gathered, loaded
    from service.cli.statuses import Refused

    with at.client() as client:
        settings = gathered(None, {"name": name, "layers": layers and loaded(layers)}, sets or ())
        settings = fields(settings, "folder", "base", "module")
        modules = module[0] if module and len(module) == 1 and not layers else module
        try:
            model = client.import_peft(folder, bases.base_id(client, base), modules or None, **settings)
        except ValueError as error:
            raise Refused(f"{folder} has no configuration of PEFT that can be read: {error}") from None
    printing.record(model, as_json=at.as_json, id_only=quiet)
