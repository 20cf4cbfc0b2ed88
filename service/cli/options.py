"""Arguments and options that several commands have."""

from typing import Annotated

from typer import Argument, Option

from service.cli.completion import of

MODEL_PANEL, TRAINING_PANEL, DATA_PANEL = "The model", "The training", "The data"

ModelId = Annotated[
    str, Argument(metavar="MODEL", autocompletion=of("models"), help="Its id, the beginning of it, or its name.")
]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Print the id alone.")]
Sets = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="Any other field, such as weight_decay=0.1 or data.noise=0.2."),
]
Form = Annotated[
    str | None,
    Option(
        "--format",
        metavar="FORMAT",
        help="npy, npz, csv, safetensors or json; told from the content by default.",
        rich_help_panel=DATA_PANEL,
    ),
]
Version = Annotated[int | None, Option(help="An earlier version; by default the current one.")]

In = Annotated[int | None, Option("--in", metavar="N", help="Features that go in.", rich_help_panel=MODEL_PANEL)]
Out = Annotated[int | None, Option("--out", metavar="N", help="Features that come out.", rich_help_panel=MODEL_PANEL)]
Rank = Annotated[
    int | None, Option(help="Of the change; default: 4, or the smaller size.", rich_help_panel=MODEL_PANEL)
]
Alpha = Annotated[float | None, Option(help="scaling = alpha / rank; default: rank.", rich_help_panel=MODEL_PANEL)]
Init = Annotated[
    str | None,
    Option(help="How A and B begin: kaiming, normal, gaussian, orthogonal, pissa, olora.", rich_help_panel=MODEL_PANEL),
]
Base = Annotated[
    str | None,
    Option(
        metavar="ID|FILE",
        autocompletion=of("bases"),
        help="A base by its id, or a safetensors file of weight and bias.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Layers = Annotated[
    str | None,
    Option(metavar="FILE", help="Several layers: a list of their fields as JSON.", rich_help_panel=MODEL_PANEL),
]
Name = Annotated[str | None, Option(help="What to call it.", rich_help_panel=MODEL_PANEL)]
Seed = Annotated[int | None, Option(help="Drawn by default.")]

Epochs = Annotated[int | None, Option(help="Passes over the data; default 10.", rich_help_panel=TRAINING_PANEL)]
Lr = Annotated[float | None, Option(help="Learning rate; default 0.01.", rich_help_panel=TRAINING_PANEL)]
Optimizer = Annotated[str | None, Option(help="adam, adamw, sgd or closed_form.", rich_help_panel=TRAINING_PANEL)]
Loss = Annotated[
    str | None,
    Option(
        help="mse, mae, huber, cross_entropy, bce_with_logits or cosine; default mse, for digits cross_entropy.",
        rich_help_panel=TRAINING_PANEL,
    ),
]
BatchSize = Annotated[int | None, Option(help="Rows of a batch; default: all.", rich_help_panel=TRAINING_PANEL)]
Schedule = Annotated[str | None, Option(help="constant, linear or cosine.", rich_help_panel=TRAINING_PANEL)]
Patience = Annotated[
    int | None,
    Option(help="Stop after so many epochs without a better loss.", rich_help_panel=TRAINING_PANEL),
]
Plan = Annotated[
    str | None,
    Option(metavar="FILE", help="A plan as JSON or TOML; options go before it.", rich_help_panel=TRAINING_PANEL),
]
Data = Annotated[
    str | None,
    Option(
        metavar="KIND|ID|FILE|-",
        autocompletion=of("datasets"),
        help="random, teacher, digits, a data set, or a file of x and y; default random.",
        rich_help_panel=DATA_PANEL,
    ),
]
Target = Annotated[
    list[str] | None,
    Option(
        metavar="COLUMN", help="A column of CSV that is to be learnt, by name or number.", rich_help_panel=DATA_PANEL
    ),
]
Validation = Annotated[
    str | None,
    Option(
        metavar="SHARE|KIND|ID|FILE",
        help="A share of the rows that is held out, as 0.2, or data of its own.",
        rich_help_panel=DATA_PANEL,
    ),
]
