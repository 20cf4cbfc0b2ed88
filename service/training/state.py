"""All that a run has come to between two epochs, as a value that can be saved and trained on from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from service.training.plan import Path

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class State:
    """A run after `epoch` epochs and `steps` steps of its optimizer.

    `arrays`: `parameters` (A, B and the own bias in one vector), `memory.…` of the optimizer, `order` and `masks` (the
    states of the generators), `curves.…` (a number for each epoch), and `best` (parameters) where the best is kept;
    `watched` then says what is known of it. `over`: all that is missing is the last look at the data.
    """

    path: Path
    epoch: int
    steps: int
    arrays: Arrays
    watched: Mapping[str, float]
    over: bool = False

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return sum(array.nbytes for array in self.arrays.values())


def continued(state: State, path: Path) -> State:
    """The state as the start of another run: its parameters, its optimizer's memory and its generators."""
    arrays = {name: array for name, array in state.arrays.items() if name != "best" and not name.startswith("curves.")}
    return State(path=path, epoch=0, steps=state.steps, arrays=arrays, watched={})


def as_parts(state: State) -> tuple[dict[str, Any], Arrays]:
    """The state as an object of JSON's own types, and named arrays."""
    facts = {name: getattr(state, name) for name in ("path", "epoch", "steps", "over")}
    return {**facts, "watched": dict(state.watched)}, state.arrays


def from_parts(facts: Mapping[str, Any], arrays: Arrays) -> State:
    """The state that `as_parts` described."""
    return State(**facts, arrays=arrays)
