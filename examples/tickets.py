"""Support tickets put together from phrases, which say where what broke, what happened and what is asked for."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

# One line for each name: its kind, the name, and phrases that mean it.
PHRASES = Path(__file__).with_suffix(".tsv")
# So many phrases of each line are held out: no adapter learns from a ticket with one of them.
HELD_OUT = 2


@dataclass(frozen=True)
class Ticket:
    """A sentence or two, and what each of three offices files it under."""

    text: str
    place: str
    event: str
    wish: str


def tickets(count: int, seed: int, *, held_out: bool) -> list[Ticket]:
    """Different tickets, of the phrases to learn from or of those that are held out."""
    found: dict[Ticket, None] = {}
    for ticket in _drawn(Random(seed), slice(-HELD_OUT, None) if held_out else slice(-HELD_OUT)):
        found[ticket] = None
        if len(found) == count:
            break
    return list(found)


def _drawn(numbers: Random, which: slice) -> Iterator[Ticket]:
    kinds = _phrases()
    while True:
        name = {kind: numbers.choice(list(names)) for kind, names in kinds.items()}
        place, device, event, wish = (numbers.choice(kinds[kind][name[kind]][which]) for kind in kinds)
        yield Ticket(f"{place}, {device} {event}. {wish}", name["place"], name["event"], name["wish"])


def _phrases() -> dict[str, dict[str, list[str]]]:
    """The phrases by kind and name."""
    kinds: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for line in PHRASES.read_text(encoding="utf-8").splitlines():
        kind, name, phrases = line.split("\t")
        kinds[kind][name] = phrases.split(" | ")
    return kinds
