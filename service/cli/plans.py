"""A training as the options of a command describe it."""

from collections.abc import Sequence
from typing import Any

from service.cli import rows
from service.cli.settings_given import fields, gathered
from service.client import Client


def planned(
    client: Client,
    file: str | None,
    sets: Sequence[str],
    *,
    data: str | None,
    validation: str | None,
    patience: int | None = None,
    form: str | None = None,
    targets: list[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The plan of a training; rows that it learns from are sent before it where they are many.

    Raises:
        Refused: for a file that cannot be read, or settings that are none.
    """
    plan = gathered(file, options, ())
    if data == "digits":
        plan.setdefault("loss", "cross_entropy")  # the only loss that learns classes
    loss = gathered(None, plan, sets).get("loss", "mse")
    if data is not None:
        plan["data"] = rows.described(client, data, loss, form, targets)
    if validation is not None:
        share = _share(validation)
        plan["validation"] = rows.described(client, validation, loss, form, targets) if share is None else share
    if patience is not None:
        plan["early_stopping"] = {"patience": patience}
    plan = gathered(None, plan, sets)
    return fields(plan, "model", "wait")


def _share(text: str) -> float | None:
    """A share of the rows; None for what is no number, such as the name of a file."""
    try:
        return float(text)
    except ValueError:
        return None
