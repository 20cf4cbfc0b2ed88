"""`lora train`."""

from typing import Annotated

from typer import Option

from service.cli import options as o
from service.cli.calling import Place, calling
from service.cli.completion import of


@calling
def train(
    at: Place,
    model: o.ModelId,
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
    seed: o.Seed = None,
    continue_from: Annotated[
        str | None,
        Option(
            metavar="JOB", autocompletion=of("jobs"), help="Go on where it ended.", rich_help_panel=o.TRAINING_PANEL
        ),
    ] = None,
    plan: o.Plan = None,
    sets: o.Sets = None,
    follow: Annotated[bool, Option("--follow", "-f", help="Watch the losses until the job ends.")] = False,
    quiet: o.Quiet = False,
) -> None:
    """Train a model, on data that is generated, uploaded, or in a file.

    Rows of a file go within the request where they are few, and are uploaded as a data set where they are many. While
    it is followed, Ctrl-C leaves the job running; with --json beside --follow there is one line for each event.

    Examples:

    lora train digits --data digits --epochs 30 --batch-size 64 --follow

    lora train mdl_01M8 --data rows.csv --target label --loss cross_entropy --validation 0.2

    lora train mdl_01M8 --plan plan.toml --set weight_decay=0.01
    """
    from service.cli import printing
    from service.cli.follow import watch
    from service.cli.kinds import MODEL, found
    from service.cli.plans import planned

    with at.client() as client:
        model_id = found(client, model, MODEL)
        settings = planned(
            client,
            plan,
            sets or (),
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
            seed=seed,
            continue_from=continue_from,
        )
        job = client.train(model_id, **settings)
        if follow:
            job = watch(job, as_json=at.as_json)
    if not (follow and at.as_json):
        printing.record(job, as_json=at.as_json, id_only=quiet)
