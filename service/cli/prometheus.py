"""The numbers of `/metrics`, and what two readings of them say of the time between."""

import re
from dataclasses import dataclass, field
from math import inf

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)(?: \d+)?$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SECONDS = "lora_http_request_duration_seconds"
FORWARD = "/forward"

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Reading:
    """Samples by name and labels, at a moment of a clock that only goes on."""

    at: float
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (each, has), value in self.samples.items() if each == name and wanted <= has)

    def label(self, name: str, label: str) -> str | None:
        """A label of a sample of that name, if there is one."""
        return next((value for each, has in self.samples if each == name for key, value in has if key == label), None)


def read(text: str, at: float) -> Reading:
    """The samples of Prometheus' text format."""
    return Reading(at, {(name, frozenset(LABEL.findall(labels))): float(x) for name, labels, x in SAMPLE.findall(text)})


def rate(before: Reading, now: Reading, name: str) -> float:
    """By how much a counter rose in each second between two readings; one that began anew counts from 0."""
    was, is_ = before.value(name), now.value(name)
    return (is_ - was if is_ >= was else is_) / max(now.at - before.at, 1e-9)


def quantile(share: float, before: Reading | None, now: Reading) -> float | None:
    """The seconds within which that share of the forwards was answered since an earlier reading; None without any."""
    counts: dict[float, float] = {}
    for (name, labels), value in now.samples.items():
        has = dict(labels)
        if name == f"{SECONDS}_bucket" and has["route"].endswith(FORWARD):
            earlier = before.samples.get((name, labels), 0.0) if before else 0.0
            counts[_bound(has["le"])] = counts.get(_bound(has["le"]), 0.0) + value - earlier
    total = max(counts.values(), default=0)
    if total <= 0:
        return None
    return _within(share * total, sorted(counts.items()))


def _within(wanted: float, cumulated: list[tuple[float, float]]) -> float:
    """Where a count is reached, evenly spread within its bucket, as Prometheus has it."""
    low, below = 0.0, 0.0
    for high, count in cumulated:
        if count >= wanted:
            return low if high == inf else low + (high - low) * (wanted - below) / max(count - below, 1e-9)
        low, below = high, count
    return low


def _bound(text: str) -> float:
    return inf if text == "+Inf" else float(text)
