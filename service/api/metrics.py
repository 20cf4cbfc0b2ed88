"""What `/metrics` shows: requests are counted at the door, all else is read from the rooms when it is asked for."""

import collections
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service import __version__
from service.engine import Engine
from service.jobs.state import State

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)

STARTED = "process_start_time_seconds"  # which is told on every system; the rest of a process on Linux alone


class Metrics(Collector):
    """The service in numbers, for Prometheus. No label names a model, so their number does not grow with use."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self._engine = engine
        self._started = time.time()
        self._requests = Histogram(
            "lora_http_request_duration_seconds",
            "Time from a request's headers to the end of its answer.",
            ["route", "method", "status"],
            registry=self.registry,
            buckets=BUCKETS,
        )
        self._shed = Counter(
            "lora_shed_total",
            "Requests refused because there was too much to do, by what there was too much of.",
            ["reason"],
            registry=self.registry,
        )
        self._process = ProcessCollector(registry=None)
        self._counters: dict[tuple[str, str, int], Histogram] = {}  # found again for a third of what labels() takes
        self.registry.register(self)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        key = (route, method, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._requests.labels(route, method, str(status))
        counter.observe(seconds)

    def shed(self, reason: str) -> None:
        """Count a request that was refused for want of capacity."""
        self._shed.labels(reason).inc()

    def collect(self) -> Iterator[Metric]:
        """The rooms' own counts as they are now."""
        engine = self._engine
        batcher = engine.forwards.batcher
        states = collections.Counter(str(job.state) for job in engine.ledger.all())
        jobs = GaugeMetricFamily("lora_jobs", "Jobs remembered, by state.", labels=["state"])
        for state in State:
            jobs.add_metric([str(state)], states[str(state)])
        yield jobs
        ended = CounterMetricFamily("lora_jobs_ended", "Jobs that have ended here, by how.", labels=["state"])
        for state in filter(lambda state: state.terminal, State):
            ended.add_metric([str(state)], engine.ledger.ended[state])
        yield ended
        build = GaugeMetricFamily("lora_build_info", "The version that runs.", labels=["version", "device"])
        build.add_metric([__version__, engine.device], 1)
        yield build
        for name, text, value in (
            (STARTED, "When the service started, in seconds since 1970.", self._started),
            ("lora_models", "Models held.", len(engine.registry)),
            ("lora_bases", "Bases held.", engine.registry.base_count),
            ("lora_datasets", "Data sets held.", len(engine.datasets)),
            ("lora_memory_bytes", "Tensors held: models, bases, data sets and the rows of jobs.", engine.budget.used),
            ("lora_job_queue_depth", "Jobs that wait for a worker.", len(engine.queue)),
            ("lora_workers_ready", "Training processes that are up.", engine.workers.ready),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, value in (
            ("lora_forwards", "Forward passes answered.", engine.forwards.count),
            ("lora_forward_rows", "Rows in them.", engine.forwards.rows),
            ("lora_forward_batches", "Passes that were shared by forwards, or could have been.", batcher.batches),
            ("lora_forward_batched", "Forwards in those passes.", batcher.requests),
            ("lora_worker_restarts", "Training processes that died and were replaced.", engine.workers.restarts),
        ):
            yield CounterMetricFamily(name, text, value=value)
        yield from (each for each in self._process.collect() if each.name != STARTED)
