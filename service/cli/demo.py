"""`lora demo`: the main job once, over real HTTP, for someone who wants to see it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from service.cli import printing
from service.cli.follow import follow
from service.cli.started import NotStarted, service
from service.cli.statuses import Status
from service.client import Client, Job, Model
from service.training import digits

RANKS = (1, 2, 4, 8)
PLAN: dict[str, Any] = {
    "epochs": 30,
    "batch_size": 64,
    "optimizer": "adam",
    "lr": 0.01,
    "loss": "cross_entropy",
    "data": {"kind": "digits", "split": "train"},
    "seed": 0,
}
MARK = {"panel": "digits"}  # by which the page at / finds them
SHADES = " ░▒▓█"


@dataclass(frozen=True)
class Reader:
    """A digit reader before and after its training."""

    rank: int
    model: Model
    job: Job
    accuracy_before: float
    accuracy_after: float


def demo(*, keep: bool, as_json: bool = False) -> int:
    """Run the three parts against a service of its own; the exit status.

    With `as_json` they are told beside the result, which is what each rank has learnt.
    """
    console = Console(highlight=False, stderr=as_json)
    try:
        with service(keep=keep) as (url, pid), Client(url) as client:
            first_run(client, console)
            readers = read_digits(client, console)
            one_digit(client, console, readers[-1])
            if as_json:
                kept = {"url": url, "pid": pid} if keep else {}
                printing.document({**kept, "readers": [vars(reader) for reader in readers]})
            else:
                goodbye(console, url, readers[-1].model.id, pid if keep else None)
    except NotStarted as error:  # and the service has said why
        return error.status
    return Status.OK


def first_run(client: Client, console: Console) -> None:
    """A 64→10 layer of rank 4 on random data, A and B both N(0, 1): ten epochs of Adam."""
    console.rule("A LoRA layer, trained on random data")
    model = client.create(in_features=64, out_features=10, rank=4, init="normal", seed=42, name="first run")
    console.print(f"Trainable parameters: {model.parameters.trainable}")
    console.print(f"Total parameters: {model.parameters.total}")
    job = client.train(model, seed=42)
    for event in job.events():
        if event.kind == "epoch":
            console.print("Epoch {epoch}/{epochs}, Loss: {loss:.4f}".format(**event.data))
    job.wait(check=True)


def read_digits(client: Client, console: Console) -> list[Reader]:
    """Adapters of rank 1, 2, 4 and 8 on one frozen random layer learn to read handwritten digits."""
    console.rule("Handwritten digits: what each rank can learn")
    x, y = digits.load("test")

    def accuracy(model: Model) -> float:
        return float((client.forward(model, x).argmax(axis=1) == y).mean())

    models: list[Model] = []
    for rank in RANKS:
        layer = {"base_id": models[0].base_id} if models else {"in_features": 64, "out_features": 10}
        models.append(client.create(**layer, rank=rank, seed=0, name=f"digits, rank {rank}", metadata=MARK))
    before = [accuracy(model) for model in models]
    launched = {f"rank {rank}": client.train(model, **PLAN) for rank, model in zip(RANKS, models, strict=True)}
    jobs = follow(console, launched)
    readers = [
        Reader(rank, client.model(model), job, was, accuracy(model))
        for rank, model, job, was in zip(RANKS, models, jobs, before, strict=True)
    ]
    console.print(as_table(readers))
    return readers


def as_table(readers: list[Reader]) -> Table:
    """Rank, trainable parameters, losses and held-out accuracy of each reader; 60 columns are enough."""
    table = Table(title=f"{digits.ROWS['train']} digits to learn from, {digits.ROWS['test']} held out")
    for heading in ("rank", "params", "of all", "loss, first → last", "held-out accuracy"):
        table.add_column(heading, justify="right")
    for reader in readers:
        parameters = reader.model.parameters
        table.add_row(
            str(reader.rank),
            str(parameters.trainable),
            f"{parameters.trainable_percent:.2f}%",
            f"{reader.job.losses[0]:.3f} → {reader.job.losses[-1]:.3f}",
            f"{reader.accuracy_before:.1%} → {reader.accuracy_after:.1%}",
        )
    return table


def one_digit(client: Client, console: Console, reader: Reader) -> None:
    """Show one held-out digit and what the adapter says it is."""
    console.rule("One digit, sent to /forward")
    x, y = digits.load("test")
    scores = client.forward(reader.model, x[0])
    console.print(picture(x[0]))
    shares = np.exp(scores - scores.max())
    answer = int(scores.argmax())
    share = shares[answer] / shares.sum()
    console.print(f"The rank-{reader.rank} adapter reads a {answer} ({share:.0%} sure). It is a {y[0]}.")


def picture(x: NDArray[np.float32]) -> str:
    """Eight by eight grey values from 0 to 1 as text; each is two characters wide, since characters are tall."""
    levels = np.rint(x.reshape(8, 8) * (len(SHADES) - 1)).astype(int)
    return "\n".join("".join(SHADES[level] * 2 for level in row) for row in levels)


def goodbye(console: Console, url: str, model_id: str, pid: int | None) -> None:
    """Where to go on; `pid` is that of the service, where it stays."""
    console.rule("Go on from here")
    if pid is None:
        url = "http://127.0.0.1:8000"
        console.print("This service ends now. `lora serve` starts one that stays; then there are")
    for path, what in (("/docs", "try every call"), ("/metrics", "the service in numbers"), ("/limits", "its limits")):
        console.print(f"  {url}{path}  {what}", soft_wrap=True)
    if pid is not None:
        console.print(f"  kill {pid}  stop the service", soft_wrap=True)
        body = '{"inputs": [' + ", ".join(["0.5"] * digits.FEATURES) + "]}"
        path = f"/models/{model_id}/forward"
    else:
        body, path = '{"in_features": 64, "out_features": 10}', "/models"
    console.print(f"curl {url}{path} -H 'Content-Type: application/json' -d '{body}'", soft_wrap=True)
