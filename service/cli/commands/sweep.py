"""`lora sweep`."""

from typing import Annotated

from typer import Option

from service.cli import options as o
from service.cli.calling import Place, calling
from service.cli.statuses import Refused, Status


@calling
def sweep(
    at: Place,
    over: Annotated[
        list[str],
        Option(
            metavar="NAME=VALUES",
            help="What is tried, as rank=1,2,4 or lr=0.001..0.1:5 (five from low to high): "
            "rank, alpha, lr, optimizer, init, seed.",
        ),
    ],
    in_features: o.In = None,
    out_features: o.Out = None,
    rank: o.Rank = None,
    alpha: o.Alpha = None,
    init: o.Init = None,
    base: o.Base = None,
    data: o.Data = None,
    target: o.Target = None,
    form: o.Form = None,
    validation: o.Validation = None,
    epochs: o.Epochs = None,
    lr: o.Lr = None,
    optimizer: o.Optimizer = None,
    loss: o.Loss = None,
    batch_size: o.BatchSize = None,
    schedule: o.Schedule = None,
    patience: o.Patience = None,
    plan: o.Plan = None,
    sets: o.Sets = None,
    follow: Annotated[bool, Option("--follow", "-f", help="Watch until all have ended.")] = False,
    quiet: o.Quiet = False,
) -> Status:
    """Try every combination of some settings at once, and compare them by their loss on rows that are held out.

    Fields of the model and the training are set as in --set model.use_dora=true --set train.weight_decay=0.1.

    Examples:

    lora sweep --in 64 --out 10 --data digits --over rank=1,2,4,8 --over lr=0.001..0.1:4 --follow
    """
    from service.cli import bases
    from service.cli.plans import planned
    from service.cli.settings_given import gathered, tried
    from service.cli.standings import show_sweep, watch_sweep

    with at.client() as client:
        settings = {
            "in_features": in_features,
            "out_features": out_features,
            "rank": rank,
            "alpha": alpha,
            "init": init,
            "base_id": bases.base_id(client, base),
        }
        training = planned(
            client,
            plan,
            (),
            data=data,
            validation=validation,
            patience=patience,
            form=form,
            targets=target,
            epochs=epochs,
            lr=lr,
            optimizer=optimizer,
            loss=loss,
            batch_size=batch_size,
            schedule=schedule,
        )
        request = {"model": gathered(None, settings, ()), "train": training, "over": tried(over)}
        request = gathered(None, request, sets or ())
        if odd := sorted(request.keys() - {"model", "train", "over"}):
            raise Refused(f"--set {odd[0]} is of neither; it is model.{odd[0]} or train.{odd[0]}")
        started = client.create_sweep(**request)
        if follow:
            started = watch_sweep(client, started)
    if quiet:
        print(started.id)
    else:
        show_sweep(started, as_json=at.as_json)
    return Status.FAILED if follow and started.counts.get("failed") else Status.OK
