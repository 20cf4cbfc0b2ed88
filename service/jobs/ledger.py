"""All jobs by id, as they are now; whoever watches one is told of each change."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from service.errors import JobActive, JobNotFound, ServiceError
from service.jobs import events
from service.jobs.events import Event
from service.jobs.job import Job
from service.jobs.state import State

FEED_EVENTS = 10_000

Watcher = Callable[[], None]


class Ledger:
    """Jobs in order of creation, and one feed of everything that happened to any of them lately.

    Of the jobs that have ended, only the newest `keep` are remembered. Whoever reads waits for nobody who writes.
    """

    def __init__(self, keep: int, forget: Callable[[Sequence[str]], None] = lambda job_ids: None) -> None:
        self.keep = keep
        self.ended: Counter[State] = Counter()  # how many have ended here so, those that are forgotten among them
        self._forget = forget  # told of jobs before they are forgotten
        self._jobs: dict[str, Job] = {}
        self._ended: deque[str] = deque()
        self._feed: deque[tuple[int, str, int]] = deque(maxlen=FEED_EVENTS)  # (place in the feed, job, event number)
        self._place = 0
        self._watchers: dict[str | None, set[Watcher]] = {}
        self._lock = threading.RLock()  # held while a job changes, which may take as long as a disk does
        self._telling = threading.RLock()  # held while what happened is told, or read

    def __len__(self) -> int:
        return len(self._jobs)

    def all(self) -> list[Job]:
        """Every job, oldest first."""
        return list(self._jobs.values())

    def get(self, job_id: str) -> Job:
        """The job as it is now.

        Raises:
            JobNotFound
        """
        try:
            return self._jobs[job_id]
        except KeyError:
            raise JobNotFound(f"there is no job {job_id}; GET /jobs lists those there are") from None

    def active(self, model_id: str) -> list[Job]:
        """The jobs of a model that have not ended."""
        return [job for job in self.all() if job.model_id == model_id and not job.state.terminal]

    def add(self, job: Job) -> Job:
        """Take in a new job."""
        with self._lock:
            self._jobs[job.id] = job
            self._tell(job, before=0)
            return job

    def find(self, job_id: str) -> Job | None:
        """The job as it is now; None where there is none."""
        return self._jobs.get(job_id)

    @property
    def ids(self) -> Collection[str]:
        """The ids of all jobs."""
        return self._jobs.keys()

    def learn(self, job: Job) -> None:
        """Put a job as it is elsewhere in the place of what is known of it; whoever ended it makes room for it."""
        with self._lock:
            known = self._jobs.get(job.id)
            self._jobs[job.id] = job
            if job.state.terminal:
                self._ended.append(job.id)
            self._tell(job, 0 if known is None else events.count(known))

    def lose(self, job_id: str) -> None:
        """Forget a job that was forgotten elsewhere."""
        with self._lock:
            self._jobs.pop(job_id, None)
            with suppress(ValueError):
                self._ended.remove(job_id)

    def restore(self, jobs: Sequence[Job]) -> None:
        """Take in jobs as they were, however many: nothing has happened to them, and nothing is forgotten."""
        with self._lock:
            self._jobs.update({job.id: job for job in jobs})
            ended = [job for job in jobs if job.finished_at is not None]
            self._ended.extend(job.id for job in sorted(ended, key=lambda job: (job.finished_at, job.id)))

    def trim(self) -> None:
        """Forget the jobs that ended longest ago, as many as there are too many."""
        with self._lock:
            surplus = [self._ended.popleft() for _ in range(len(self._ended) - self.keep)]
            if surplus:
                with suppress(ServiceError):  # a start forgets them again
                    self._forget(surplus)
                for job_id in surplus:
                    self._jobs.pop(job_id, None)

    def swap(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Put the changed job in the place of the old one, unless that has ended; the job as it is then.

        Raises:
            JobNotFound
        """
        with self._lock:
            job = self.get(job_id)
            if job.state.terminal:
                return job
            before = events.count(job)
            changed = change(job)
            self._put(changed, before)
            return changed

    def swap_all(self, job_ids: Collection[str], change: Callable[[Sequence[Job]], Sequence[Job]]) -> Sequence[Job]:
        """Put changed jobs in the place of those of these that have not ended, all or none; the changed ones."""
        with self._lock:
            there = [job for job in self._jobs.values() if job.id in job_ids and not job.state.terminal]
            before = [events.count(job) for job in there]
            changed = change(there)
            for job, count in zip(changed, before, strict=True):
                self._put(job, count)
            return changed

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended.

        Raises:
            JobNotFound
            JobActive: when it has not ended.
        """
        with self._lock:
            job = self.get(job_id)
            if not job.state.terminal:
                raise JobActive(f"job {job_id} is {job.state}; cancel it first")
            self._forget([job_id])
            del self._jobs[job_id]
            self._ended.remove(job_id)

    def watch(self, watcher: Watcher, job_id: str | None = None) -> Callable[[], None]:
        """Call `watcher`, from whatever thread, after each change of one job or of any; returns how to stop that."""
        with self._telling:
            self._watchers.setdefault(job_id, set()).add(watcher)

        def stop() -> None:
            with self._telling:
                watchers = self._watchers.get(job_id, set())
                watchers.discard(watcher)
                if not watchers:
                    self._watchers.pop(job_id, None)

        return stop

    def ring(self) -> None:
        """Call every watcher, though no job has changed."""
        with self._telling:
            for watcher in [watcher for watchers in self._watchers.values() for watcher in watchers]:
                watcher()

    @property
    def place(self) -> int:
        """The place in the feed of the newest event."""
        return self._place

    def feed(self, after: int) -> Iterator[tuple[int, Job, Event]]:
        """What happened to any job after a place in the feed, as far back as that reaches."""
        with self._telling:
            # Places follow one another, so the newest are as many as the feed has grown.
            lately = list(islice(reversed(self._feed), max(0, self._place - after)))[::-1]
            jobs = {job_id: self._jobs.get(job_id) for _, job_id, _ in lately}
        for place, job_id, number in lately:
            job = jobs[job_id]
            if job is not None:
                for event in events.since(job, number - 1, number):  # none, where the job was taken back before it
                    yield place, job, event

    def _put(self, job: Job, before: int) -> None:
        self._jobs[job.id] = job
        if job.state.terminal:
            self.ended[job.state] += 1
            self._ended.append(job.id)
            self.trim()
        self._tell(job, before)

    def _tell(self, job: Job, before: int) -> None:
        with self._telling:
            for number in range(before + 1, events.count(job) + 1):
                self._place += 1
                self._feed.append((self._place, job.id, number))
            for watcher in [*self._watchers.get(job.id, ()), *self._watchers.get(None, ())]:
                watcher()
