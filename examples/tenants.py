"""Three offices file the same tickets each in its own way: one embedding, one shared base, an adapter for each office.

`python examples/tenants.py [--url URL]` embeds tickets with a real sentence model, uploads the identity as the base of
all three, trains an adapter for each office over HTTP, and counts how often the nearest ticket that is on file is in
the right folder.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from embedding import FEATURES, embed
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from running import run
from tickets import Ticket, tickets

from service.cli.follow import follow
from service.client import Client, Job, Model

ON_FILE, ARRIVING = 450, 250
OFFICES = {"customer care": "place", "quality": "event", "front desk": "wish"}
ADAPTER = {"rank": 8, "dropout": 0.2, "seed": 0}
PLAN: dict[str, Any] = {"epochs": 200, "lr": 0.005, "loss": "cosine", "seed": 0}

Vectors = NDArray[np.float32]
Folders = NDArray[np.str_]


@dataclass(frozen=True)
class Tickets:
    """Tickets as vectors (n, 384), and the folder of each by what it is filed under."""

    vectors: Vectors
    folders: dict[str, Folders]


def tenants(client: Client, console: Console) -> None:
    """Train an adapter for each office, and show what it finds."""
    console.rule("Three offices, one base")
    base = client.upload_base(np.eye(FEATURES))
    models = {office: client.create(base_id=base, name=office, **ADAPTER) for office in OFFICES}
    on_file, arriving = (
        embedded(tickets(count, seed, held_out=held_out))
        for count, seed, held_out in ((ON_FILE, 2, False), (ARRIVING, 3, True))
    )
    follow(console, {office: train(client, models[office], on_file, by) for office, by in OFFICES.items()})
    console.print(as_table(client, models, on_file, arriving))
    console.print(f"Each adapter has {models['quality'].bytes:,} bytes, the base they share {base.bytes:,}.")


def embedded(some: list[Ticket]) -> Tickets:
    """Tickets with what the sentence model makes of them."""
    folders = {by: np.array([getattr(ticket, by) for ticket in some]) for by in OFFICES.values()}
    return Tickets(embed([ticket.text for ticket in some]), folders)


def train(client: Client, model: Model, on_file: Tickets, by: str) -> Job:
    """Launch the job in which each ticket learns to point where the middle of its folder lies."""
    dataset = client.upload_dataset(on_file.vectors, middles(on_file.vectors, on_file.folders[by]))
    return client.train(model, data=dataset, **PLAN)


def middles(vectors: Vectors, folders: Folders) -> Vectors:
    """The way from the middle of all tickets to that of each ticket's folder (n, 384)."""
    targets = np.empty_like(vectors)
    for folder in np.unique(folders):
        targets[folders == folder] = vectors[folders == folder].mean(axis=0) - vectors.mean(axis=0)
    return targets


def found(queries: Vectors, wanted: Folders, vectors: Vectors, folders: Folders) -> float:
    """The share of queries whose nearest vector, by the angle between them, is in the folder that is wanted."""
    lengths = np.linalg.norm(vectors, axis=1)
    return float((folders[(queries @ vectors.T / lengths).argmax(axis=1)] == wanted).mean())


def as_table(client: Client, models: dict[str, Model], on_file: Tickets, arriving: Tickets) -> Table:
    """What each office finds by the embedding alone, by its own adapter, and by those of the other two."""
    table = Table(title=f"{ARRIVING} tickets in phrases that are new, {ON_FILE} on file")
    for heading in ("office", "files by", "embedding", "own adapter", "others'"):
        table.add_column(heading, justify="left" if heading in ("office", "files by") else "right")

    def share(by: str, office: str | None = None) -> float:
        vectors = [each.vectors for each in (arriving, on_file)]
        queries, stored = (client.forward(models[office], x) for x in vectors) if office else vectors
        return found(queries, arriving.folders[by], stored, on_file.folders[by])

    for office, by in OFFICES.items():
        others = float(np.mean([share(by, other) for other in OFFICES if other != office]))
        table.add_row(office, by, f"{share(by):.1%}", f"{share(by, office):.1%}", f"{others:.1%}")
    return table


if __name__ == "__main__":
    sys.exit(run(tenants, str(__doc__).partition("\n")[0]))
