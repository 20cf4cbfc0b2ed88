"""The kinds of things that a service holds, by the first letters of their ids: how each is read, listed and deleted."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from service.cli.columns import BASES, DATASETS, JOBS, MODELS, SWEEPS, Column
from service.cli.statuses import Refused
from service.client import Client
from service.errors import (
    BaseNotFound,
    DatasetNotFound,
    JobNotFound,
    ModelNotFound,
    NotFound,
    SweepNotFound,
)
from service.ids import BASE_ID, DATASET_ID, JOB_ID, MODEL_ID, SWEEP_ID, matches

# What an id may begin with, and not the name of a model such as base_tuned.
BEGUN = r"(mdl|job|dat|swp)_[0-9A-HJKMNP-TV-Z]*|(base)_[0-9a-f]*"
SHOWN_AMBIGUOUS = 3


@dataclass(frozen=True)
class Kind:
    """One kind of thing.

    Attributes:
        id_form: the pattern of its ids.
        listed: everything of this kind.
        delete: told the id, and whether to end first what stands in the way.
        cancel: for what trains or waits; what it is then.
    """

    name: str
    id_form: str
    read: Callable[[Client, str], Any]
    listed: Callable[[Client], Iterator[Any]]
    delete: Callable[[Client, str, bool], None]
    missing: type[NotFound]
    columns: tuple[Column, ...]
    cancel: Callable[[Client, str], Any] | None = None


def _delete_job(client: Client, job_id: str, force: bool) -> None:
    if force:
        client.job(job_id).cancel()
    client.delete_job(job_id)


KINDS = {
    "mdl": Kind(
        "model",
        MODEL_ID,
        Client.model,
        Client.models,
        lambda client, model_id, force: client.delete(model_id, force=force),
        ModelNotFound,
        MODELS,
    ),
    "job": Kind(
        "job",
        JOB_ID,
        Client.job,
        Client.jobs,
        _delete_job,
        JobNotFound,
        JOBS,
        lambda client, job_id: client.job(job_id).cancel(),
    ),
    "base": Kind(
        "base",
        BASE_ID,
        Client.base,
        Client.bases,
        lambda client, base_id, force: client.delete_base(base_id),
        BaseNotFound,
        BASES,
    ),
    "dat": Kind(
        "data set",
        DATASET_ID,
        Client.dataset,
        Client.datasets,
        lambda client, dataset_id, force: client.delete_dataset(dataset_id),
        DatasetNotFound,
        DATASETS,
    ),
    "swp": Kind(
        "sweep",
        SWEEP_ID,
        Client.sweep,
        Client.sweeps,
        lambda client, sweep_id, force: client.delete_sweep(sweep_id, force=force),
        SweepNotFound,
        SWEEPS,
        Client.cancel_sweep,
    ),
}
MODEL, JOB, BASE = KINDS["mdl"], KINDS["job"], KINDS["base"]


def kind_of(text: str) -> Kind:
    """The kind of thing that an id, or the beginning of one, names; what begins like none is a model's name."""
    return _begun(text) or MODEL


def found(client: Client, text: str, kind: Kind | None = None) -> str:
    """The id that a text stands for: itself, the only one that begins so, or that of the only model of this name.

    Raises:
        NotFound, Refused: for none, and for several.
    """
    kind = kind or kind_of(text)
    if matches(kind.id_form, text):
        return text
    begun = _begun(text)
    if begun not in (None, kind):
        raise Refused(f"{text} is a {begun.name}, and a {kind.name} is wanted")
    ids = [each.id for each in kind.listed(client) if text and (each.id.startswith(text) or _name(each) == text)]
    if not ids:
        raise kind.missing(f"there is no {kind.name} {text[:80]!r}")
    if len(ids) > 1:
        some = ", ".join(ids[:SHOWN_AMBIGUOUS])
        raise Refused(f"{text!r} may be any of {len(ids)} {kind.name}s ({some}, …); give more of the id")
    return str(ids[0])


def _begun(text: str) -> Kind | None:
    """The kind whose ids begin with a text; None for what no id begins with."""
    begun = re.fullmatch(BEGUN, text)
    return KINDS[begun[1] or begun[2]] if begun else None


def _name(thing: Any) -> str | None:
    return getattr(thing, "name", None)
