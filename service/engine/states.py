"""The training states of the jobs that ended last, so that another job can go on where one of them stopped."""

import threading

from service.errors import StateGone
from service.models import job_rows
from service.models.store import Store
from service.training.state import State


class States:
    """States by job, within so many bytes; the oldest go first. A store that is durable has them, memory has not."""

    def __init__(self, max_bytes: int, store: Store) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        self._store = store
        self._sizes: dict[str, int] = {}
        self._states: dict[str, State] = {}
        self._lock = threading.Lock()

    def takes(self, state: State) -> bool:
        """Whether there is room for a state when all others have gone."""
        return state.nbytes <= self.max_bytes

    def keep(self, job_id: str, state: State) -> list[str]:
        """Keep the state of a job, unless it alone is too large; the jobs whose states are kept no longer."""
        if not self.takes(state):
            return [job_id]
        if not self._store.durable:
            self._states[job_id] = state
        return self.know(job_id, state.nbytes)

    def know(self, job_id: str, nbytes: int) -> list[str]:
        """Count the state of a job, which the store has; the jobs whose states are kept no longer."""
        with self._lock:
            self._sizes[job_id] = nbytes
            self.used += nbytes
            gone = []
            while self.used > self.max_bytes:
                gone.append(next(iter(self._sizes)))
                self._forget(gone[-1])
            return gone

    def drop(self, job_id: str) -> None:
        """Keep the state of a job no longer."""
        with self._lock:
            self._forget(job_id)

    def must_have(self, job_id: str) -> None:
        """Raise StateGone where the state of a job is not kept."""
        if job_id not in self._sizes:
            raise StateGone(
                f"the training state of job {job_id} is no longer kept (LORA_STATES_MIB); "
                "train without continue_from, which starts the optimizer afresh"
            )

    def get(self, job_id: str) -> State:
        """The state in which a job ended.

        Raises:
            StateGone
            StorageUnavailable: when it cannot be read.
        """
        self.must_have(job_id)
        state = self._states.get(job_id) or job_rows.state(self._store, job_id)
        if state is None:  # dropped meanwhile
            self.drop(job_id)
            self.must_have(job_id)
        assert state is not None, "what is not there has been refused"
        return state

    def _forget(self, job_id: str) -> None:
        self.used -= self._sizes.pop(job_id, 0)
        self._states.pop(job_id, None)
