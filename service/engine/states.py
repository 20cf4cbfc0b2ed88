"""The training states of the jobs that ended last, so that another job can go on where one of them stopped."""

import threading

from service.errors import StateGone
from service.training.state import State


class States:
    """States by job, within so many bytes; the oldest go first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        self._states: dict[str, State] = {}
        self._lock = threading.Lock()

    def takes(self, state: State) -> bool:
        """Whether there is room for a state when all others have gone."""
        return state.nbytes <= self.max_bytes

    def keep(self, job_id: str, state: State) -> list[str]:
        """Keep the state of a job, unless it alone is too large; the jobs whose states are kept no longer."""
        if not self.takes(state):
            return [job_id]
        with self._lock:
            self._states[job_id] = state
            self.used += state.nbytes
            gone = []
            while self.used > self.max_bytes:
                gone.append(next(iter(self._states)))
                self.used -= self._states.pop(gone[-1]).nbytes
            return gone

    def drop(self, job_id: str) -> None:
        """Keep the state of a job no longer."""
        with self._lock:
            state = self._states.pop(job_id, None)
            self.used -= 0 if state is None else state.nbytes

    def get(self, job_id: str) -> State:
        """The state in which a job ended.

        Raises:
            StateGone
        """
        state = self._states.get(job_id)
        if state is None:
            raise StateGone(
                f"the training state of job {job_id} is no longer kept (LORA_STATES_MIB); "
                "train without continue_from, which starts the optimizer afresh"
            )
        return state
