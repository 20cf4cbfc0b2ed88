"""A sweep: how its members stand, once or as they go on."""

import time

from rich.console import Console
from rich.live import Live

from service.cli import columns, printing
from service.cli.statuses import tell
from service.client import Client
from service.schemas.training import Sweep

LOOK_SECONDS = 0.5
SHOWN = 30


def show_sweep(sweep: Sweep, *, as_json: bool) -> None:
    """Print the standings, the best first."""
    if not as_json and printing.for_a_reader():
        Console().print(f"[bold]{sweep.id}[/] {sweep.state}, {_counts(sweep)}")
    if as_json:
        printing.document(sweep)
    else:
        printing.listed(sweep.leaderboard, columns.STANDINGS, as_json=False)


def watch_sweep(client: Client, sweep: Sweep) -> Sweep:
    """Look at a sweep until it has ended, on a terminal with its standings; the sweep as it is then.

    Ctrl-C leaves it running, and says so.
    """
    console = Console(stderr=True)
    try:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            while sweep.state != "ended":
                if console.is_terminal:
                    live.update(
                        printing.table(sweep.leaderboard[:SHOWN], columns.STANDINGS, _counts(sweep)), refresh=True
                    )
                time.sleep(LOOK_SECONDS)
                sweep = client.sweep(sweep)
    except KeyboardInterrupt:
        tell(f"{sweep.id} goes on; `lora show {sweep.id}` shows how it stands, `lora cancel {sweep.id}` ends it")
        raise
    return sweep


def _counts(sweep: Sweep) -> str:
    return ", ".join(f"{count} {state}" for state, count in sweep.counts.items())
