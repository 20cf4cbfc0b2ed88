"""`lora create`."""

from service.cli import options as o
from service.cli.calling import Place, calling


@calling
def create(
    at: Place,
    in_features: o.In = None,
    out_features: o.Out = None,
    rank: o.Rank = None,
    alpha: o.Alpha = None,
    init: o.Init = None,
    base: o.Base = None,
    layers: o.Layers = None,
    name: o.Name = None,
    seed: o.Seed = None,
    sets: o.Sets = None,
    quiet: o.Quiet = False,
) -> None:
    """Create a model: a LoRA adapter on a frozen linear layer.

    Examples:

    lora create --in 64 --out 10 --rank 4 --name digits

    lora create --base layer.safetensors --rank 8 --init pissa --set use_dora=true
    """
    from service.cli import bases, printing
    from service.cli.settings_given import fields, gathered, loaded

    with at.client() as client:
        settings = {
            "in_features": in_features,
            "out_features": out_features,
            "rank": rank,
            "alpha": alpha,
            "init": init,
            "base_id": bases.base_id(client, base),
            "layers": layers and loaded(layers),
            "name": name,
            "seed": seed,
        }
        model = client.create(**fields(gathered(None, settings, sets or ())))
    printing.record(model, as_json=at.as_json, id_only=quiet)
