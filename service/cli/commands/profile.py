"""`lora rank-profile`."""

from service.cli import options as o
from service.cli.calling import Place, calling


@calling
def rank_profile(
    at: Place,
    model: o.ModelId,
    data: o.Data = "random",
    target: o.Target = None,
    form: o.Form = None,
    sets: o.Sets = None,
) -> None:
    """Tell the lowest squared error that an adapter of each rank can reach on some data.

    Examples:

    lora rank-profile mdl_01M8 --data teacher --set teacher_rank=2 --set noise=0.1

    lora rank-profile mdl_01M8 --data rows.npz
    """
    from service.cli import columns, printing, rows
    from service.cli.kinds import MODEL, found
    from service.cli.settings_given import gathered

    with at.client() as client:
        model_id = found(client, model, MODEL)
        chosen = rows.described(client, data or "random", "mse", form, target)
        settings = gathered(None, chosen, sets) if sets else chosen
        profile = client.rank_profile(model_id, settings)
    if at.as_json:
        printing.document(profile)
    else:
        printing.listed(profile.ranks, columns.REACHES, as_json=False)
