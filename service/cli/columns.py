"""What a list shows of each kind of thing, column by column."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.client.record import sparks

STATES = {
    "queued": "dim",
    "running": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "ended": "green",
}
AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
KIB = 1_024


@dataclass(frozen=True)
class Column:
    """A heading, and what stands under it.

    Attributes:
        told: the text of a thing for a program.
        shown: that for a reader, where it is another.
        styled: how a reader sees it.
    """

    heading: str
    told: Callable[[Any], Any]
    shown: Callable[[Any], str] | None = None
    right: bool = False
    styled: Callable[[Any], str] | None = None


def age(moment: datetime) -> str:
    """How long ago something was, in its greatest unit."""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    size, unit = next(((size, unit) for size, unit in AGES if seconds >= size), AGES[-1])
    return f"{seconds // size} {unit}"


def amount(count: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if count < KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= KIB
    return f"{count:.1f} GiB"


def loss(value: float | None) -> str:
    """A loss in a few digits."""
    return "" if value is None else f"{value:.4g}"


def _features(thing: Any) -> str:
    return f"{thing.in_features}→{'?' if thing.out_features is None else thing.out_features}"


def _created(thing: Any) -> str:
    return str(thing.created_at.isoformat(timespec="seconds"))


ID = Column("id", lambda thing: thing.id)
STATE = Column("state", lambda thing: thing.state, styled=lambda thing: STATES.get(str(thing.state), ""))
BYTES = Column("bytes", lambda thing: thing.bytes, lambda thing: amount(thing.bytes), right=True)
AGE = Column("age", _created, lambda thing: age(thing.created_at), right=True)
SIZES = Column("in→out", _features)

MODELS = (
    ID,
    Column("name", lambda model: model.name),
    SIZES,
    Column("rank", lambda model: model.rank, right=True),
    Column("params", lambda model: model.parameters.trainable, right=True),
    Column("version", lambda model: model.version, right=True),
    Column("loss", lambda model: model.last_loss, lambda model: loss(model.last_loss), right=True),
    AGE,
)
JOBS = (
    ID,
    Column("model", lambda job: job.model_id),
    STATE,
    Column("epoch", lambda job: f"{job.epoch}/{job.epochs}", right=True),
    Column(
        "loss",
        lambda job: job.losses[-1] if job.losses else None,
        lambda job: f"{sparks(job.losses)} {loss(job.losses[-1])}" if job.losses else "",
        right=True,
    ),
    Column("reason", lambda job: job.reason, styled=lambda job: "red"),
    AGE,
)
BASES = (
    ID,
    SIZES,
    Column("dtype", lambda base: base.dtype),
    Column("models", lambda base: base.models, right=True),
    BYTES,
    AGE,
)
DATASETS = (
    ID,
    SIZES,
    Column("rows", lambda dataset: dataset.n_samples, right=True),
    Column("targets", lambda dataset: dataset.targets),
    BYTES,
    AGE,
)
SWEEPS = (
    ID,
    STATE,
    Column("members", lambda sweep: len(sweep.leaderboard), right=True),
    Column(
        "best",
        lambda sweep: sweep.leaderboard[0].validation_loss if sweep.leaderboard else None,
        lambda sweep: loss(sweep.leaderboard[0].validation_loss) if sweep.leaderboard else "",
        right=True,
    ),
    AGE,
)
STANDINGS = (
    Column("place", lambda standing: standing.place, right=True),
    Column("model", lambda standing: standing.model_id),
    Column("job", lambda standing: standing.job_id),
    STATE,
    Column("tries", lambda standing: ",".join(f"{name}={_short(value)}" for name, value in standing.settings.items())),
    Column("params", lambda standing: standing.trainable, right=True),
    Column(
        "held-out loss",
        lambda standing: standing.validation_loss,
        lambda standing: loss(standing.validation_loss),
        right=True,
    ),
)
VERSIONS = (
    Column("version", lambda version: version.version, right=True),
    Column("origin", lambda version: version.origin),
    Column("job", lambda version: version.job_id),
    Column("loss", lambda version: version.loss, lambda version: loss(version.loss), right=True),
    AGE,
)
REACHES = (
    Column("rank", lambda reach: reach.rank, right=True),
    Column("loss", lambda reach: reach.loss, lambda reach: f"{reach.loss:.6g}", right=True),
    Column("params", lambda reach: reach.trainable, right=True),
)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
